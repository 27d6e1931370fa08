"""Output: one line of plain text for every event, which says what happened and what to do.

How the lines read is compared here and nowhere else.
"""

from __future__ import annotations

import signal
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from conftest import (
    API_SECRET,
    CONNECTOR_ID,
    LINE,
    MAYBE,
    NOT_STARTED,
    PATIENCE,
    RESPONSE,
    UNKNOWN_ID,
    Runner,
    execute,
)
from faults import HTML, LATER, REFUSAL, SUCCESS, close, reply, stall

if TYPE_CHECKING:
    from pathlib import Path

    from fake_fivetran import FakeFivetran, Fault

SAYS = "HTTP {}, Refusal: What Fivetran says. (request ID r-1)"
NOT_FIVETRAN = "HTTP {}, not an answer of Fivetran; it begins: {}"

# One answer, and the last line: what came, then what is true of the sync and what to do.
LAST_LINES: list[tuple[Fault, str, str]] = [
    (
        reply(200, SUCCESS),
        "HTTP 200, Success: on its way (request ID r-1)",
        "was started",
    ),
    (
        reply(500, REFUSAL, LATER),
        SAYS.format(500) + "; no time is left to wait 3600 s",
        f"{MAYBE}. Fivetran seems to have a problem: see status.fivetran.com",
    ),
    (
        reply(400, '{"code": 7}'),
        "HTTP 400, 7: no message (request ID r-1)",
        f"{NOT_STARTED}. Look for a newer version of this script",
    ),
    (
        reply(401, REFUSAL),
        SAYS.format(401),
        f"{NOT_STARTED}. Check FIVETRAN_API_KEY and FIVETRAN_API_SECRET",
    ),
    (
        reply(403, REFUSAL),
        SAYS.format(403),
        f"{NOT_STARTED}. Give the API key a role that may sync this connection",
    ),
    (
        reply(404, REFUSAL),
        SAYS.format(404),
        f"{NOT_STARTED}. Take the connector ID from the Setup tab of the connection",
    ),
    (
        reply(409, REFUSAL),
        SAYS.format(409),
        f"{NOT_STARTED}. Wait until the sync under way has ended, then run this again",
    ),
    (
        reply(429, REFUSAL, LATER),
        SAYS.format(429) + "; no time is left to wait 3600 s",
        f"{NOT_STARTED}. Run this later: the account's requests of this hour are used up",
    ),
    (
        reply(403, HTML),
        NOT_FIVETRAN.format(403, HTML),
        f"{NOT_STARTED}. Look for a proxy, a firewall or a portal in between",
    ),
    (
        reply(204),
        NOT_FIVETRAN.format(204, "nothing"),
        f"{MAYBE}. Look for a proxy, a firewall or a portal in between",
    ),
]


@pytest.mark.parametrize(("answer", "reason", "verdict"), LAST_LINES)
def test_the_last_line_says_what_came_what_is_true_and_what_to_do(
    run: Runner, fivetran: FakeFivetran, answer: Fault, reason: str, verdict: str
) -> None:
    fivetran.faults.append(answer)
    _, last = run().last.split(" ", 1)
    assert last == f"Connector {CONNECTOR_ID}: {reason}. The sync {verdict}"


@pytest.mark.parametrize(
    ("faults", "bundles", "advice"),
    [
        ([close("connect")] * 4, {}, "Check the network, and HTTPS_PROXY if"),
        ([close("answer")] * 4, {}, "Run this again, which is safe"),
        ([], {"REQUESTS_CA_BUNDLE": "/missing.pem"}, "Check REQUESTS_CA_BUNDLE"),
        ([], {"REQUESTS_CA_BUNDLE": None}, "Name the authority that you trust in"),
    ],
    ids=["unconnected", "unanswered", "CA bundle", "certificate"],
)
def test_the_advice_fits_what_broke(
    run: Runner,
    fivetran: FakeFivetran,
    faults: list[Fault],
    bundles: dict[str, str | None],
    advice: str,
) -> None:
    fivetran.faults.extend(faults)
    others = dict.fromkeys(("CURL_CA_BUNDLE", "SSL_CERT_FILE"))
    assert advice in run(**others, **bundles).last


def test_time_that_is_over_at_once_is_told_as_such(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(stall("connect"))
    result = run("--timeout=1e-6")
    assert (result.code, result.truth) == (249, NOT_STARTED)
    assert "no connection to api.fivetran.com" in result.last
    assert " within 1e-06 s. " in result.last


@pytest.mark.parametrize(
    ("stage", "missing"),
    [("answer", "no whole answer from"), ("handshake", "no connection to")],
)
def test_time_that_is_over_is_told_with_what_came_before(
    run: Runner, fivetran: FakeFivetran, stage: str, missing: str
) -> None:
    # Less time than the wait and the five seconds for a connection together.
    fivetran.faults.extend([reply(503, REFUSAL, {"Retry-After": "2"}), stall(stage)])
    result = run("--timeout=6.9")
    through = f"api.fivetran.com through the proxy {fivetran.proxy_url}"
    assert f": {missing} {through} within 6.9 s, after HTTP 503, " in result.last
    assert result.truth == MAYBE


def test_an_earlier_try_is_told(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(close("answer"))
    last = run(FIVETRAN_CONNECTOR_ID=UNKNOWN_ID).last
    assert "The sync may have been started by an earlier try. " in last


def test_a_record_that_cannot_be_written_is_told(run: Runner) -> None:
    last = run(SHIPYARD_ARTIFACTS_DIRECTORY=f"/dev/null/{API_SECRET}").last
    assert "the record cannot be written: " in last
    assert "/dev/null" in last
    assert "Check that disk and folder, or set SHIPYARD_ARTIFACTS_DIRECTORY" in last


def test_a_good_run_says_what_it_does_what_it_kept_and_what_came_of_it(
    run: Runner,
) -> None:
    result = run()
    doing, kept, _ = result.out.splitlines()
    assert f"Forcing a sync of connector {CONNECTOR_ID}" in doing
    for path in (result.response_path, result.record_path):
        assert str(path.relative_to(result.folder)) in kept
    assert result.err == ""


def test_something_is_said_before_the_wait(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(stall("answer"))
    process = run.start()
    assert process.stdout
    assert "Forcing a sync" in process.stdout.readline()
    assert fivetran.arrived.acquire(timeout=PATIENCE)
    process.send_signal(signal.SIGTERM)
    assert f"{CONNECTOR_ID}: ended by SIGTERM. " in run.finish(process).last


# Form ------------------------------------------------------------------------------------


def test_every_line_begins_with_the_time_in_utc(
    run: Runner, fivetran: FakeFivetran
) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    fivetran.faults.append(reply(404, REFUSAL))
    lines = run(TZ="Asia/Kolkata").lines
    assert len(lines) == 3
    for line in lines:
        moment = datetime.strptime(line[:20], "%Y-%m-%dT%H:%M:%SZ")
        moment = moment.replace(tzinfo=timezone.utc)
        assert before <= moment <= datetime.now(timezone.utc)


def test_what_is_not_printable_is_shown_as_plain_text(
    run: Runner, fivetran: FakeFivetran
) -> None:
    message = r"a\nb\u001b[31mred\u2028\u202ekcab\ud800\u009b"
    body = f'{{"code": "Success", "message": "{message}"}}'
    fivetran.faults.append(reply(200, body, {"X-Request-Id": "\x1b[2J"}))
    result = run()
    assert r"a\nb\x1b[31mred\u2028\u202ekcab\ud800\x9b" in result.last
    assert r"(request ID \x1b[2J)" in result.last
    assert all(c.isprintable() or c == "\n" for c in result.out + result.err)


def test_long_messages_are_cut(run: Runner, fivetran: FakeFivetran) -> None:
    body = '{"code": "Success", "message": "%s"}' % ("long " * 10_000)
    fivetran.faults.append(reply(200, body, {"X-Request-Id": "x" * 5_000}))
    assert 300 < len(run().last) < 700


def test_a_short_key_does_not_blot_out_what_is_said(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.credentials = ("sync", "start")
    result = run(FIVETRAN_API_KEY="sync", FIVETRAN_API_SECRET="start")
    assert "The sync was started" in result.last


def test_a_terminal_that_only_takes_ascii_gets_ascii(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(200, '{"code": "Success", "message": "größer ✓"}'))
    folder = "ärtifacts"
    result = run(SHIPYARD_ARTIFACTS_DIRECTORY=folder, PYTHONIOENCODING="ascii:strict")
    assert r"gr\xf6\xdfer \u2713" in result.last
    assert result.out.isascii()


SINKS = {
    "all closed": "<&- >&- 2>&-",
    "both full": "> /dev/full 2>&1",
    "a reader that has gone": "2>&1 | head -0",
}


@pytest.mark.parametrize("name", SINKS)
def test_output_that_nobody_takes_does_not_stop_the_sync(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append(reply(503))  # so that there is something on stderr, too
    command = f'set -o pipefail; "$@" {SINKS[name]}'
    process = execute(
        ["bash", "-c", command, "bash", *run.command],
        cwd=run.folder,
        env=run.environment,
    )
    assert process.returncode == 0
    assert "Traceback" not in process.stderr
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
    assert len(lines) == 36
    assert all(LINE.fullmatch(line) for line in lines)


def test_warnings_of_libraries_are_not_printed(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "chardet.py").write_text("__version__ = '99.0.0'")
    assert run(PYTHONPATH=str(tmp_path), PYTHONWARNINGS="default").err == ""
