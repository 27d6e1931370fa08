"""Output: one line of plain text for every event, on the stream it belongs to."""

import json
import os
from datetime import datetime, timezone

import pytest
from faults import answer, page
from harness import API_SECRET, CONNECTOR_ID, LINE, PATIENCE, execute


def test_a_good_run_says_what_it_does_and_how_it_ended_with_the_time_in_utc(script):
    before = datetime.now(timezone.utc).replace(microsecond=0)
    lines = script.run(TZ="Asia/Kolkata").out.splitlines()
    for line in lines:
        moment = datetime.strptime(f"{line[:19]}+0000", "%Y-%m-%dT%H:%M:%S%z")
        assert before <= moment <= datetime.now(timezone.utc)
    doing, done = (line[20:] for line in lines)
    file = script.response_file.relative_to(script.folder)
    told = f"Forcing a sync. The response goes to {file}"
    assert doing == f" Connector {CONNECTOR_ID}: {told}"
    success = "The sync was started. HTTP 200, Success: Sync has been successfully "
    assert done.startswith(f" Connector {CONNECTOR_ID}: {success}")


def test_a_failure_is_told_on_stderr_and_what_mends_itself_is_not(script, fivetran):
    fivetran.faults.extend([page(502), answer(401)])
    run = script.run()
    told = "HTTP 502, not an answer from Fivetran's API; it begins: <!DOCTYPE"
    assert f"Z Connector {CONNECTOR_ID}: {told}" in run.out
    assert "</title>. Trying again in " in run.out
    told = " HTTP 401, Refusal: No, says Fivetran. Check the API key and secret.\n"
    assert run.err.endswith(f": The sync may have been started.{told}")


def test_what_is_not_printable_is_shown_as_plain_text(script, fivetran):
    message = "a\nb\x1b[31mred\u2028\u202ekcab\ud800\x9bgrün"
    body = json.dumps({"code": "Refusal", "message": message}).encode()
    fivetran.faults.append(answer(404, {"X-Request-Id": "\x1b[2J"}, body))
    verdict = script.run(PYTHONIOENCODING="ascii:strict").verdict
    assert r"a b\x1b[31mred \u202ekcab\ud800\x9bgr\xfcn" in verdict
    assert r"(request ID \x1b[2J)" in verdict


def test_no_line_shows_a_secret_wherever_it_comes_from(script):
    process = script.start(SHIPYARD_ARTIFACTS_DIRECTORY=f"./{API_SECRET}/x")
    out, _ = process.communicate(timeout=PATIENCE)
    assert API_SECRET not in out
    assert "The response goes to ***/x/fivetran-blueprints/responses/" in out


@pytest.mark.parametrize(
    "sink",
    ["<&- >&- 2>&-", "> /dev/full 2>&1", "2>&1 | head -0"],
    ids=["closed", "full", "a reader that has gone"],
)
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
        assert LINE.fullmatch(line[:-1])


def test_warnings_of_libraries_are_not_printed(script, tmp_path):
    (tmp_path / "chardet.py").write_text("__version__ = '99.0.0'")
    run = script.run(PYTHONPATH=str(tmp_path), PYTHONWARNINGS="default")
    assert run.err == ""
