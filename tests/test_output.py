"""What a run prints, line by line, and the two files: each whole or not there."""

import gzip
import json
import os
import pickle
import pickletools
import stat
import time
from datetime import datetime, timedelta, timezone

import harness
import pytest
import urllib3
from faults import OK, after, answer, page, send
from harness import CONNECTOR_ID, MAYBE_STARTED, NOT_STARTED, PATIENCE, STARTED

LATER = {"Retry-After": "60"}  # too late for --timeout=50


def test_an_answer_is_shown_as_plain_text_and_stored_to_the_byte(script):
    message = r"a\nb\u001b[31mred\u2028\u202ekcab\ud800 \u009bgrün"
    body = f'{{\t"code":"Refusal", "message" : "{message}", "x": 1e999}}'.encode()
    fault = answer(404, {"X-Request-Id": "\x1b[2J"}, body)
    verdict = script.run(faults=[fault], PYTHONIOENCODING="ascii:strict").verdict
    shown = r"a b\x1b[31mred \u202ekcab\ud800 \x9bgr\xfcn (X-Request-Id: \x1b[2J)"
    assert shown in verdict
    assert script.response_file.read_bytes() == body


def test_a_secret_is_hidden_wherever_it_comes_from(script):
    process = script.start(SHIPYARD_ARTIFACTS_DIRECTORY=f"./{harness.API_SECRET}/x")
    out, _ = process.communicate(timeout=PATIENCE)
    assert b"/***/x/fivetran-blueprints/responses/" in out
    echo = f"<p>Basic {harness.ENCODED}%3D, {harness.API_KEY}".encode()
    body = b'{"code": "Refusal", "message": "%b"}' % echo
    run = script.run(faults=[answer(401, {"X-Request-Id": harness.API_KEY}, body)])
    assert run.response["message"] == "<p>Basic ***%3D, ***"
    run = script.run(faults=[page(403, echo), answer(429, {"Retry-After": "999"})])
    assert " API: <p>Basic ***%3D, ***. Look" in run.out


@pytest.mark.parametrize("sink", ["<&- >&- 2>&-", "> /dev/full 2>&1", "2>&1 | head -0"])
def test_output_that_nobody_takes_does_not_stop_the_sync(script, fivetran, sink):
    shell = ["bash", "-c", f'set -o pipefail; "$@" {sink}', "bash"]
    for faults, code in (([], 0), ([answer(401)], 200)):
        fivetran.faults[""] = faults
        command = [*shell, *script.command]
        process = harness.execute(command, cwd=script.folder, env=script.environment)
        assert (process.returncode, process.stderr) == (code, "")
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 1


def test_each_line_is_written_in_one_piece(script):
    reader, writer = os.pipe2(os.O_DIRECT)  # which keeps each write apart
    script.start(stdout=writer, PYTHONUNBUFFERED="1").communicate(timeout=PATIENCE)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        *lines, end = [pipe.read(65_536).decode() for _ in range(3)]
    assert end == "" and all(harness.LINE.fullmatch(line[:-1]) for line in lines)


def test_warnings_of_libraries_are_not_printed(script, tmp_path):
    (tmp_path / "chardet.py").write_text("__version__ = '99.0.0'")
    assert script.run(PYTHONPATH=str(tmp_path), PYTHONWARNINGS="default").err == ""


@pytest.mark.skipif(urllib3.__version__ < "2", reason="urllib3 1.26 unpacks it whole")
def test_no_answer_takes_more_than_64_mib_of_memory(script):
    bomb = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2**20)) * 100
    # A small process between, as a fork counts the memory of the one that it came from.
    measure = "print(os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)[2].ru_maxrss)"
    measure = f"import os, subprocess, sys; {measure}"
    script.command = [script.command[0], "-c", measure, *script.command]
    out, _ = script.start(faults=[send(bomb), answer(401)]).communicate()
    assert b"not an answer from Fivetran's API" in out
    assert int(out.split()[-1]) / 1024 < 64


def test_the_record_holds_connector_id_and_time_for_any_python_3(script, fivetran):
    run = script.run(TZ="Asia/Kolkata")
    connector_id, moment = run.record
    (started,) = fivetran.connections[connector_id].syncs
    assert started < moment < datetime.now(timezone.utc)
    assert moment.utcoffset() == timedelta(0)
    shown = datetime.fromisoformat(run.out.splitlines()[1][:19] + "+00:00")
    assert abs(shown - moment) < timedelta(minutes=1)
    operations = list(pickletools.genops(script.record_file.read_bytes()))
    assert max(operation.proto for operation, _, _ in operations) <= 3
    imported = [str(name) for op, name, _ in operations if op.name == "GLOBAL"]
    assert {name.split()[0] for name in imported} == {"datetime"}


def test_a_run_that_starts_no_sync_leaves_the_record_of_the_last_one(script):
    first = script.run().record
    assert script.run(FIVETRAN_API_SECRET="something else").record == first
    forwarded = page(403, headers=LATER)  # by something that may have let it through
    assert script.run("--timeout=50", faults=[forwarded]).record[1] > first[1]


def test_permissions_follow_the_umask(script):
    script.command = ["sh", "-c", 'umask 027 && exec "$@"', "sh", *script.command]
    script.run()
    for path in (script.response_file, script.record_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_a_reader_never_sees_half_a_file(script):
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


DISK = "Check disk space, permissions and SHIPYARD_ARTIFACTS_DIRECTORY."
# Shell commands after which no file can be written, and what the system says.
SPOILED = {
    "trap '' XFSZ; ulimit -f 0": "File too large",
    f"mkdir {harness.FILES.parent} && ln -s nowhere {harness.FILES}": "File exists",
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_nothing_is_sent_if_the_response_cannot_be_written(script, fivetran, spoil):
    script.command = ["bash", "-c", f'{spoil}; exec "$@"', "bash", *script.command]
    run = script.run()
    told = f"{script.response_file} cannot be written: {SPOILED[spoil]}."
    assert (run.code, run.out) == (1, "")
    assert run.verdict == f"{NOT_STARTED} {told} {DISK}"
    assert not fivetran.tunnels


@pytest.mark.parametrize("lost", [["response"], ["record"], ["response", "record"]])
def test_a_file_that_cannot_be_written_is_told_and_keeps_the_other(script, lost):
    """A folder comes in its way before the answer."""
    files = {"response": script.response_file, "record": script.record_file}

    def spoil():
        for name in lost:
            files[name].unlink(missing_ok=True)
            files[name].mkdir(parents=True)

    run = script.run("--timeout=50", faults=[after(spoil, answer(500, LATER))])
    cause = "HTTP 500, Refusal: No, says Fivetran (Retry-After: 60)."
    told = [f"{files[name]} cannot be written: Is a directory." for name in lost]
    parts = [MAYBE_STARTED, cause, "Check status.fivetran.com.", *told, DISK]
    assert run.verdict == " ".join(parts) + harness.RESTART
    assert [name for name in files if not getattr(run, name)] == lost
    again = script.run(faults=[answer(200)])
    assert again.sync == (NOT_STARTED if "response" in lost else STARTED)
    assert (run.code, again.code) == (1, 1)
