"""Output: one line of plain text for every event, on the stream it belongs to."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from conftest import ARTIFACTS, CONNECTOR_ID, LINE, RESPONSE, Runner, execute
from faults import answer, page

if TYPE_CHECKING:
    from pathlib import Path

    from fake_fivetran import FakeFivetran


def test_a_good_run_says_what_it_does_and_what_came_of_it(run: Runner) -> None:
    doing, done = run().lines
    assert f"forcing a sync; the response goes to {ARTIFACTS / RESPONSE}" in doing
    success = "HTTP 200, Success: Sync has been successfully triggered for connection"
    assert f"Connector {CONNECTOR_ID}: {success}" in done
    assert done.endswith("). The sync was started.")


def test_a_failure_is_told_on_stderr_and_what_mends_itself_is_not(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(page(502))
    assert "Trying again in " in run().out  # and nothing is on stderr
    fivetran.faults.append(answer(401))
    refused = "HTTP 401, Refusal: What Fivetran says. The sync was not started. Check "
    assert refused in run().err


def test_every_line_begins_with_the_time_in_utc(run: Runner) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    for line in run(TZ="Asia/Kolkata").lines:
        moment = datetime.strptime(f"{line[:19]}+0000", "%Y-%m-%dT%H:%M:%S%z")
        assert before <= moment <= datetime.now(timezone.utc)


def test_what_is_not_printable_is_shown_as_plain_text(
    run: Runner, fivetran: FakeFivetran
) -> None:
    message = r"a\nb\u001b[31mred\u2028\u202ekcab\ud800\u009bgr\u00fc\u00df"
    body = f'{{"code": "Refusal", "message": "{message}"}}'
    fault = page(404, body, {"X-Request-Id": "\x1b[2J"})
    fivetran.faults.append(fault._replace(status=404))
    last = run(PYTHONIOENCODING="ascii:strict").last
    assert r"a\nb\x1b[31mred\u2028\u202ekcab\ud800\x9bgr\xfc\xdf" in last
    assert r"(request ID \x1b[2J)" in last


SINKS = {
    "all closed": "<&- >&- 2>&-",
    "both full": "> /dev/full 2>&1",
    "a reader that has gone": "2>&1 | head -0",
}


@pytest.mark.parametrize("name", SINKS)
def test_output_that_nobody_takes_does_not_stop_the_sync(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append(page(503))
    command = f'set -o pipefail; "$@" {SINKS[name]}'
    process = execute(
        ["bash", "-c", command, "bash", *run.command],
        cwd=run.folder,
        env=run.environment,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert fivetran.connections[CONNECTOR_ID].syncing
    assert '"Success"' in (run.artifacts / RESPONSE).read_text()


def test_lines_stay_whole_when_many_runs_share_a_stream(run: Runner) -> None:
    command = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "$@" & done; wait'
    process = execute(
        ["bash", "-c", command, "bash", *run.command],
        cwd=run.folder,
        env={**run.environment, "PYTHONUNBUFFERED": "1"},
    )
    lines = process.stdout.splitlines()
    assert len(lines) == 24
    assert all(LINE.fullmatch(line) for line in lines)


def test_warnings_of_libraries_are_not_printed(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "chardet.py").write_text("__version__ = '99.0.0'")
    assert run(PYTHONPATH=str(tmp_path), PYTHONWARNINGS="default").err == ""
