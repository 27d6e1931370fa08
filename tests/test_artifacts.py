"""Artifacts: what they hold, and that they are whole or not there at all."""

import json
import pickle
import pickletools
import stat
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from faults import CHUNKED, OK, after, answer, page, pour, send
from harness import ARTIFACTS, CONNECTOR_ID, NOT_STARTED, PATIENCE, STARTED, execute

# The response ----------------------------------------------------------------------------


def test_the_response_is_stored_to_the_byte(script, fivetran):
    sent = '{ "code":"Success",\t"message" : "запущено \\u2713 \\ud800",\n"x":1e999}'
    fivetran.faults.append(answer(200, body=sent.encode()))
    script.run()
    assert script.response_file.read_bytes() == sent.encode()


MIB = 1024 * 1024


def bomb():
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = [*[packer.compress(bytes(MIB)) for _ in range(100)], packer.flush()]
    return send(OK + b"Content-Encoding: gzip\r\n\r\n" + b"".join(packed))


FLOODS = {
    "body": lambda: pour(OK + b'\r\n{"code": "Success", "x": "', b"x" * MIB),
    "chunks": lambda: pour(CHUNKED, b"100000\r\n" + bytes(MIB) + b"\r\n"),
    "compressed body": bomb,
}


@pytest.mark.parametrize("name", FLOODS)
def test_no_answer_takes_more_than_64_mib_of_memory(script, fivetran, name):
    fivetran.faults.append(FLOODS[name]())
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:]);"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, *script.command, "--timeout=5.7"]
    process = execute(command, cwd=script.folder, env=script.environment)
    assert "not an answer from Fivetran's API" in process.stderr
    assert int(process.stdout.split()[-1]) / 1024 < 64
    (response_file,) = script.folder.rglob("*.json")
    assert response_file.stat().st_size < 65_536


# The record ------------------------------------------------------------------------------


def test_the_record_holds_connector_id_and_time_of_the_answer_for_any_python_3(
    script, fivetran
):
    connector_id, execution_time = script.run().record
    assert connector_id == CONNECTOR_ID
    assert execution_time.utcoffset() == timedelta(0)
    (started,) = fivetran.connections[CONNECTOR_ID].syncs
    assert started < execution_time < datetime.now(timezone.utc)
    operations = list(pickletools.genops(script.record_file.read_bytes()))
    assert max(operation.proto for operation, _, _ in operations) <= 3
    imported = [str(name) for op, name, _ in operations if op.name == "GLOBAL"]
    assert {name.split()[0] for name in imported} == {"datetime"}


def test_a_run_that_starts_no_sync_leaves_the_record_of_the_last_one(script, fivetran):
    first = script.run().record
    assert script.run(FIVETRAN_API_SECRET="something else").record == first
    fivetran.faults.append(page(403))  # by something that may have forwarded it
    assert script.run("--timeout=5.7").record[1] > first[1]


# How they are written --------------------------------------------------------------------


def test_permissions_follow_the_umask(script):
    script.command = ["sh", "-c", 'umask 027 && exec "$@"', "sh", *script.command]
    script.run()
    for path in (script.response_file, script.record_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_a_reader_never_sees_a_torn_or_an_empty_artifact(script):
    script.run()
    over = threading.Event()

    def read():
        looks = 0
        while not over.is_set():
            response = json.loads(script.response_file.read_text())
            assert response["code"] in ("Success", "NoResponse")
            assert pickle.loads(script.record_file.read_bytes())[0] == CONNECTOR_ID
            looks += 1
        return looks

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            processes = [script.start() for _ in range(8)]
            codes = {process.wait(PATIENCE) for process in processes}
        finally:
            over.set()
        assert reader.result() > 10
    for process in processes:
        script.finish(process)
    assert codes == {0}


# Where they cannot be written ------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        # No file may grow: the folders can be made, and nothing be written into them.
        ("trap '' XFSZ; ulimit -f 0", "json: [Errno 27] File too large."),
        (f"mkdir -p {ARTIFACTS} && ln -s nowhere {ARTIFACTS}/variables", "pickle: "),
    ],
)
def test_what_cannot_be_written_ends_the_run_before_it_sends(
    script, fivetran, spoil, told
):
    script.command = ["bash", "-c", f'{spoil}; exec "$@"', "bash", *script.command]
    run = script.run()
    assert (run.code, run.out) == (1, "")
    assert run.verdict.startswith(f"{NOT_STARTED} An artifact cannot be written: ")
    assert told in run.verdict
    assert run.verdict.endswith(
        ". Free disk space, check permissions, or set SHIPYARD_ARTIFACTS_DIRECTORY."
    )
    assert not fivetran.tunnels


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("lost", ["response_file", "record_file"])
def test_an_artifact_that_cannot_be_written_keeps_the_other_and_the_truth(
    script, fivetran, status, lost
):
    """A folder comes in the way of one before the answer."""

    def spoil():
        getattr(script, lost).unlink(missing_ok=True)
        getattr(script, lost).mkdir()

    fivetran.faults.append(after(spoil, answer(status)))
    run = script.run()
    needed = status == 200 or lost == "response_file"
    assert run.sync == (STARTED if status == 200 else NOT_STARTED)
    assert run.code == (1 if needed else 200)
    told = f" An artifact cannot be written: {getattr(script, lost).name}: "
    assert (told in run.verdict and f" (HTTP {status}, " in run.verdict) == needed
    if lost == "response_file":
        assert bool(run.record) == (status == 200)
    else:
        assert run.response["code"] == ("Success" if status == 200 else "Refusal")
