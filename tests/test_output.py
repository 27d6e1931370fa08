"""Output: one line of plain text for every event, on the stream it belongs to."""

import json
from datetime import datetime, timezone

import pytest
from conftest import CONNECTOR_ID, LINE, execute
from faults import answer, page


def test_a_good_run_says_what_it_does_and_what_came_of_it(run):
    doing, done = run().out.splitlines()
    path = run.response.relative_to(run.folder)
    assert f"{CONNECTOR_ID}: forcing a sync; the response goes to {path}" in doing
    success = "HTTP 200, Success: Sync has been successfully triggered for connection"
    assert f" Connector {CONNECTOR_ID}: {success}" in done
    assert done.endswith("). The sync was started.")


def test_a_failure_is_told_on_stderr_and_what_mends_itself_is_not(run, fivetran):
    fivetran.faults.append(page(502))
    assert "Trying again in " in run().out
    fivetran.faults.append(answer(401))
    told = "HTTP 401, Refusal: What Fivetran says. The sync was not started. Check "
    assert told in run().err


def test_every_line_begins_with_the_time_in_utc(run):
    before = datetime.now(timezone.utc).replace(microsecond=0)
    for line in run(TZ="Asia/Kolkata").out.splitlines():
        moment = datetime.strptime(f"{line[:19]}+0000", "%Y-%m-%dT%H:%M:%S%z")
        assert before <= moment <= datetime.now(timezone.utc)


def test_what_is_not_printable_is_shown_as_plain_text(run, fivetran):
    message = "a\nb\x1b[31mred\u2028\u202ekcab\ud800\x9bgrün"
    body = json.dumps({"code": "Refusal", "message": message}).encode()
    fivetran.faults.append(answer(404, {"X-Request-Id": "\x1b[2J"}, body))
    last = run(PYTHONIOENCODING="ascii:strict").last
    assert r"a\nb\x1b[31mred\u2028\u202ekcab\ud800\x9bgr\xfcn" in last
    assert r"(request ID \x1b[2J)" in last


@pytest.mark.parametrize(
    "sink",
    ["<&- >&- 2>&-", "> /dev/full 2>&1", "2>&1 | head -0"],
    ids=["closed", "full", "a reader that has gone"],
)
def test_output_that_nobody_takes_does_not_stop_the_sync(run, fivetran, sink):
    shell = ["bash", "-c", f'set -o pipefail; "$@" {sink}', "bash"]
    for faults, code in (([], 0), ([answer(401)], 200)):
        fivetran.faults.extend(faults)
        command = [*shell, *run.command]
        process = execute(command, cwd=run.folder, env=run.environment)
        assert (process.returncode, process.stderr) == (code, "")
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 1


def test_lines_stay_whole_when_many_runs_share_a_stream(run):
    script = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "$@" & done; wait'
    command = ["bash", "-c", script, "bash", *run.command]
    environment = {**run.environment, "PYTHONUNBUFFERED": "1"}
    process = execute(command, cwd=run.folder, env=environment)
    lines = process.stdout.splitlines()
    assert len(lines) == 24
    assert all(LINE.fullmatch(line) for line in lines)


def test_warnings_of_libraries_are_not_printed(run, tmp_path):
    (tmp_path / "chardet.py").write_text("__version__ = '99.0.0'")
    assert run(PYTHONPATH=str(tmp_path), PYTHONWARNINGS="default").err == ""
