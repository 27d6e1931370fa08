"""What a run prints, line by line, and what it stores: all of an artifact or nothing."""

import gzip
import json
import os
import pickle
import pickletools
import stat
import sys
import time
from datetime import datetime, timedelta, timezone

import harness
import pytest
from faults import CHUNKED, OK, after, answer, page, pour, send
from harness import ARTIFACTS, CONNECTOR_ID, NOT_STARTED, PATIENCE, STARTED, execute


def test_a_line_has_the_time_in_utc_and_the_connector(script):
    before = datetime.now(timezone.utc).replace(microsecond=0)
    first, last = script.run(TZ="Asia/Kolkata").out.splitlines()
    moment = datetime.strptime(f"{last[:19]}+0000", "%Y-%m-%dT%H:%M:%S%z")
    assert before <= moment <= datetime.now(timezone.utc)
    file = script.response_file.relative_to(script.folder)
    told = f"Connector {CONNECTOR_ID}: Forcing a sync. The response goes to {file}"
    assert first[21:] == told


def test_what_is_not_printable_is_shown_as_plain_text(script, fivetran):
    message = "a\nb\x1b[31mred\u2028\u202ekcab\ud800\x9bgrün"
    body = json.dumps({"code": "Refusal", "message": message}).encode()
    fivetran.faults.append(answer(404, {"X-Request-Id": "\x1b[2J"}, body))
    verdict = script.run(PYTHONIOENCODING="ascii:strict").verdict
    assert r"a b\x1b[31mred \u202ekcab\ud800\x9bgr\xfcn" in verdict
    assert r"(request ID \x1b[2J)" in verdict


def test_no_line_shows_a_secret_wherever_it_comes_from(script):
    process = script.start(SHIPYARD_ARTIFACTS_DIRECTORY=f"./{harness.API_SECRET}/x")
    out, _ = process.communicate(timeout=PATIENCE)
    assert harness.API_SECRET.encode() not in out
    assert b"The response goes to ***/x/fivetran-blueprints/responses/" in out


@pytest.mark.parametrize("sink", ["<&- >&- 2>&-", "> /dev/full 2>&1", "2>&1 | head -0"])
def test_output_that_nobody_takes_does_not_stop_the_sync(script, fivetran, sink):
    shell = ["bash", "-c", f'set -o pipefail; "$@" {sink}', "bash"]
    for faults, code in (([], 0), ([answer(401)], 200)):
        fivetran.faults.extend(faults)
        command = [*shell, *script.command]
        process = execute(command, cwd=script.folder, env=script.environment)
        assert (process.returncode, process.stderr) == (code, "")
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 1


def test_each_line_is_written_in_one_piece(script):
    """Other runs may write to the same stream; this one keeps each write apart."""
    reader, writer = os.pipe2(os.O_DIRECT)
    script.start(stdout=writer, PYTHONUNBUFFERED="1").communicate(timeout=PATIENCE)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        *lines, end = [pipe.read(65_536).decode() for _ in range(3)]
    assert end == ""
    for line in lines:
        assert line.endswith("\n")
        assert harness.LINE.fullmatch(line[:-1])


def test_warnings_of_libraries_are_not_printed(script, tmp_path):
    (tmp_path / "chardet.py").write_text("__version__ = '99.0.0'")
    run = script.run(PYTHONPATH=str(tmp_path), PYTHONWARNINGS="default")
    assert run.err == ""


def test_the_response_is_stored_to_the_byte(script, fivetran):
    sent = '{ "code":"Success",\t"message" : "запущено \\u2713 \\ud800",\n"x":1e999}'
    fivetran.faults.append(answer(200, body=sent.encode()))
    script.run()
    assert script.response_file.read_bytes() == sent.encode()


MIB = 1024 * 1024
BOMB = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(MIB)) * 100
FLOODS = {
    "body": pour(OK + b'\r\n{"code": "Success", "x": "', b"x" * MIB),
    "chunks": pour(CHUNKED, b"100000\r\n" + bytes(MIB) + b"\r\n"),
    "compressed body": send(BOMB),
}
PEAK = """import resource, subprocess, sys
subprocess.run(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""


@pytest.mark.parametrize("name", FLOODS)
def test_no_answer_takes_more_than_64_mib_of_memory(script, fivetran, name):
    fivetran.faults.append(FLOODS[name])
    command = [sys.executable, "-c", PEAK, *script.command, "--timeout=5.7"]
    process = execute(command, cwd=script.folder, env=script.environment)
    assert "not an answer from Fivetran's API" in process.stderr
    assert int(process.stdout.split()[-1]) / 1024 < 64
    (response_file,) = script.folder.rglob("*.json")
    assert response_file.stat().st_size < 65_536


def test_the_record_holds_connector_id_and_time_for_any_python_3(script, fivetran):
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


def test_permissions_follow_the_umask(script):
    script.command = ["sh", "-c", 'umask 027 && exec "$@"', "sh", *script.command]
    script.run()
    for path in (script.response_file, script.record_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_a_reader_never_sees_a_torn_or_an_empty_artifact(script):
    script.run()
    processes = [script.start() for _ in range(8)]
    looks, deadline = 0, time.monotonic() + PATIENCE
    while any(process.poll() is None for process in processes):
        assert time.monotonic() < deadline
        response = json.loads(script.response_file.read_text())
        assert response["code"] in ("Success", "NoResponse")
        assert pickle.loads(script.record_file.read_bytes())[0] == CONNECTOR_ID
        looks += 1
    assert looks > 10
    assert {script.finish(process).code for process in processes} == {0}


# Shell commands after which an artifact cannot be written, and what is told.
SPOILED = {
    # No file may grow: the folders can be made, and nothing be written into them.
    "trap '' XFSZ; ulimit -f 0": "json: [Errno 27] File too large. ",
    f"mkdir {ARTIFACTS.parent} && ln -s nowhere {ARTIFACTS}": "; sync_",  # both
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_what_cannot_be_written_keeps_the_run_from_sending(script, fivetran, spoil):
    script.command = ["bash", "-c", f'{spoil}; exec "$@"', "bash", *script.command]
    run = script.run()
    assert (run.code, run.out) == (1, "")
    assert run.verdict.startswith(f"{NOT_STARTED} An artifact cannot be written: ")
    assert SPOILED[spoil] in run.verdict
    advice = "Free disk space, check permissions, or set SHIPYARD_ARTIFACTS_DIRECTORY."
    assert run.verdict.endswith(f". {advice}")
    assert not fivetran.tunnels


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("lost", ["response_file", "record_file"])
def test_one_that_cannot_be_written_keeps_the_other(script, fivetran, status, lost):
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
