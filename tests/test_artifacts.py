"""Artifacts: what they hold, and that they are whole or not there at all."""

import json
import pickle
import pickletools
import shutil
import stat
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from conftest import API_SECRET, CONNECTOR_ID, NOT_STARTED, PATIENCE, STARTED, execute
from faults import CHUNKED, OK, after, answer, page, pour, send

# The response ----------------------------------------------------------------------------


def test_the_response_is_stored_to_the_byte(run, fivetran):
    sent = '{ "code":"Success",\t"message" : "запущено \\u2713 \\ud800",\n"x":1e999}'
    fivetran.faults.append(answer(200, body=sent.encode()))
    run()
    assert run.response.read_bytes() == sent.encode()


def test_secrets_that_are_echoed_are_not_stored(run, fivetran):
    echo = API_SECRET.encode()
    fivetran.faults.append(answer(401, body=b'{"code": "x", "y": "%b"}' % echo))
    assert run().response["y"] == "***"
    fivetran.faults.append(page(401, b"<html>%b</html>" % echo))
    assert run().response["body"] == "<html>***</html>"


MIB = 1024 * 1024


def bomb():
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = [compressor.compress(bytes(MIB)) for _ in range(100)]
    head = OK + b"Content-Encoding: gzip\r\n\r\n"
    return send(head + b"".join([*packed, compressor.flush()]))


FLOODS = {
    "body": lambda: pour(OK + b'\r\n{"code": "Success", "x": "', b"x" * MIB),
    "chunks": lambda: pour(CHUNKED, b"100000\r\n" + bytes(MIB) + b"\r\n"),
    "compressed body": bomb,
}


@pytest.mark.parametrize("name", FLOODS)
def test_no_answer_takes_more_than_64_mib_of_memory(run, fivetran, name):
    fivetran.faults.append(FLOODS[name]())
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:]);"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, *run.command]
    process = execute(command, cwd=run.folder, env=run.environment)
    assert "not an answer of Fivetran's API" in process.stderr
    assert int(process.stdout.split()[-1]) / 1024 < 64
    assert run.response.stat().st_size < 65_536


# The record ------------------------------------------------------------------------------


def test_the_record_holds_connector_id_and_the_time_of_the_answer(run, fivetran):
    connector_id, execution_time = run().record
    assert connector_id == CONNECTOR_ID
    assert execution_time.utcoffset() == timedelta(0)
    (started,) = fivetran.connections[CONNECTOR_ID].syncs
    assert started < execution_time < datetime.now(timezone.utc)


def test_any_python_3_loads_the_record_with_its_standard_library_alone(run):
    run()
    operations = list(pickletools.genops(run.record.read_bytes()))
    assert max(operation.proto for operation, _, _ in operations) <= 3
    imported = [str(name) for op, name, _ in operations if op.name == "GLOBAL"]
    assert {name.split()[0] for name in imported} == {"datetime"}


def test_a_run_that_starts_no_sync_leaves_the_record_of_the_last_one(run, fivetran):
    first = run().record
    assert run(FIVETRAN_API_SECRET="something else").record == first
    assert run("--timeout=1e-6").record == first
    fivetran.faults.append(page(403))  # by something that may have forwarded it
    assert run().record[1] > first[1]


# How they are written --------------------------------------------------------------------


def test_permissions_follow_the_umask(run):
    run.command = ["sh", "-c", 'umask 027 && exec "$@"', "sh", *run.command]
    run()
    for path in (run.response, run.record):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_a_reader_never_sees_a_torn_or_an_empty_artifact(run):
    run()
    over = threading.Event()

    def read():
        looks = 0
        while not over.is_set():
            response = json.loads(run.response.read_text())
            assert response["code"] in ("Success", "NoResponse")
            assert pickle.loads(run.record.read_bytes())[0] == CONNECTOR_ID
            looks += 1
        return looks

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            processes = [run.start() for _ in range(8)]
            for process in processes:
                process.communicate(timeout=PATIENCE)
        finally:
            over.set()
        assert reader.result() > 10
    assert {process.returncode for process in processes} == {0}
    assert len(list(run.folder.rglob("*.*"))) == 2


# Where they cannot be written ------------------------------------------------------------


def test_a_full_disk_ends_the_run_before_it_sends(run, fivetran):
    """No file may grow: the folders can be made, and nothing can be written into them."""
    limits = 'trap "" XFSZ; ulimit -f 0; exec "$@"'
    run.command = ["bash", "-c", limits, "bash", *run.command]
    result = run()
    assert (result.code, result.truth, result.out) == (1, NOT_STARTED, "")
    assert "an artifact cannot be written: [Errno 27] File too large" in result.last
    assert "set SHIPYARD_ARTIFACTS_DIRECTORY." in result.last
    assert not fivetran.tunnels


@pytest.mark.parametrize("name", ["response", "variables"])
def test_what_is_in_the_way_ends_the_run_before_it_sends(run, fivetran, name):
    path = getattr(run, name)
    path.parent.mkdir(parents=True)
    if name == "response":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    result = run()
    assert (result.code, result.truth) == (1, NOT_STARTED)
    assert path.name in result.last
    assert not fivetran.tunnels


@pytest.mark.parametrize(
    ("name", "status", "truth"),
    [
        ("responses", 200, STARTED),
        ("variables", 200, STARTED),
        ("responses", 403, NOT_STARTED),
    ],
)
def test_a_folder_that_goes_after_the_answer_does_not_change_the_truth(
    run, fivetran, name, status, truth
):
    def spoil():
        shutil.rmtree(getattr(run, name))
        getattr(run, name).symlink_to("nowhere")

    fivetran.faults.append(after(spoil, answer(status)))
    result = run()
    assert (result.code, result.truth) == (1, truth)
    assert f" (HTTP {status}, " in result.last
