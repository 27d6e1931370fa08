"""Every run ends with the right exit code, and says the truth about the sync.

Runner.check_truth compares what each of these runs says with what the local Fivetran saw.
"""

from __future__ import annotations

import base64
import gzip
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    CONNECTOR_ID,
    MAYBE,
    NOT_STARTED,
    PATIENCE,
    STARTED,
    UNKNOWN_ID,
    Run,
    Runner,
    execute,
    needs_mounts,
)
from fake_fivetran import FakeFivetran, Fault
from faults import close, reply, reset, send, stall

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SUCCESS = '{"code": "Success", "message": "on its way"}'
REFUSAL = '{"code": "Refusal", "message": "What Fivetran says."}'
HTML = "<!DOCTYPE html><title>Sign in to Wi-Fi</title>"
LATER = {"Retry-After": "3600"}  # does not fit into the time, and so ends the run

# One answer, and how the run ends: what it says of the sync, its exit code, and the code
# in the stored response.
ANSWERS: list[tuple[str, int, str, dict[str, Fault]]] = [
    (
        STARTED,
        0,
        "Success",
        {
            "200": reply(200, SUCCESS),
            "202": reply(202, SUCCESS),
            "many brackets": reply(200, SUCCESS.replace("way", "[{" * 99)),
            "in chunks": send(
                CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SUCCESS), SUCCESS.encode()),
                200,
            ),
            "to the end of the connection": send(
                HEAD + b"\r\n" + SUCCESS.encode(), 200
            ),
            "after an interim answer": send(
                b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n" + SUCCESS.encode(),
                200,
            ),
        },
    ),
    (
        NOT_STARTED,
        201,
        "Refusal",
        {str(status): reply(status, REFUSAL) for status in (301, 400, 451)},
    ),
    (
        NOT_STARTED,
        200,
        "Refusal",
        {"401": reply(401, REFUSAL), "403": reply(403, REFUSAL)},
    ),
    (NOT_STARTED, 204, "Refusal", {"404": reply(404, REFUSAL)}),
    (NOT_STARTED, 203, "Refusal", {"409": reply(409, REFUSAL)}),
    (NOT_STARTED, 201, "Success", {"400 that claims success": reply(400, SUCCESS)}),
    (NOT_STARTED, 249, "Refusal", {"429": reply(429, REFUSAL, LATER)}),
    (
        MAYBE,
        249,
        "Refusal",
        {
            "500": reply(500, REFUSAL, LATER),
            "600": reply(600, REFUSAL),
            "200 without success": reply(200, REFUSAL),
        },
    ),
    (MAYBE, 249, "Success", {"503 that claims success": reply(503, SUCCESS, LATER)}),
    (MAYBE, 249, "success", {"small letters": reply(200, '{"code": "success"}')}),
    # What is no JSON object is not Fivetran's word, whatever its status.
    (
        NOT_STARTED,
        249,
        "InvalidResponse",
        {
            "redirect without a body": reply(307, "", {"Location": "/elsewhere"}),
            "firewall's 403": reply(403, HTML),
            "gateway's 429": reply(429, HTML, LATER),
        },
    ),
    (
        MAYBE,
        249,
        "InvalidResponse",
        {
            "portal": reply(200, HTML),
            "portal's 511": reply(511, HTML, LATER),
            "empty": reply(200),
            "no content": send(b"HTTP/1.1 204 No Content\r\n\r\n", 204),
            "list": reply(200, f"[{SUCCESS}]"),
            "half an object": reply(200, SUCCESS[:-1]),
            "UTF-16": reply(200, SUCCESS.encode("utf-16")),
            "invalid UTF-8": reply(200, b'{"code": "Success", "x": "\xff"}'),
            "nested too deep": reply(200, '{"code": "Success", "x": ' + "[" * 50_000),
            "more than 64 KiB": reply(200, SUCCESS.replace("way", "w" * 65_536)),
            "compressed": reply(
                200, gzip.compress(SUCCESS.encode()), {"Content-Encoding": "gzip"}
            ),
        },
    ),
]


@pytest.mark.parametrize(
    ("truth", "code", "kept", "answer"),
    [
        pytest.param(truth, code, kept, answer, id=f"{name}: {truth}, {code}")
        for truth, code, kept, answers in ANSWERS
        for name, answer in answers.items()
    ],
)
def test_an_answer_decides(
    run: Runner, fivetran: FakeFivetran, truth: str, code: int, kept: str, answer: Fault
) -> None:
    fivetran.faults.append(answer)
    result = run()
    assert (result.truth, result.code, result.response["code"]) == (truth, code, kept)
    assert result.record[0] == CONNECTOR_ID
    assert len(fivetran.requests) == len(fivetran.tunnels) == 1


def test_a_wrong_secret_and_an_unknown_connector_are_refused(run: Runner) -> None:
    assert run(FIVETRAN_API_SECRET="something else").code == 200
    assert run(FIVETRAN_CONNECTOR_ID=UNKNOWN_ID).code == 204


# What breaks before a request is complete: nothing can have been started.
UNSENT = {
    "proxy closes": close("connect"),
    "proxy resets": reset("connect"),
    "proxy refuses": send(
        b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", stage="connect"
    ),
    "proxy cannot reach Fivetran": send(
        b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", stage="connect"
    ),
    "proxy speaks another protocol": send(b"SSH-2.0-OpenSSH_9.2\r\n", stage="connect"),
    "closed in the handshake": close("handshake"),
    "reset in the handshake": reset("handshake"),
    "TLS alert": send(b"\x15\x03\x03\x00\x02\x02\x28", stage="handshake"),
    "HTTP in the place of TLS": send(b"HTTP/1.1 400 Bad\r\n\r\n", stage="handshake"),
    "proxy stalls": stall("connect"),
    "handshake stalls": stall("handshake"),
}
# What breaks afterwards: something may have been.
SENT = {
    "closed without an answer": close("answer"),
    "reset without an answer": reset("answer"),
    "another protocol": send(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "headers without end": send(HEAD + b"X: y\r\n" * 1_000),
    "two lengths": send(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
    "cut in the headers": send(HEAD + b"Conte"),
    "cut in the body": send(HEAD + b"Content-Length: 99\r\n\r\n" + SUCCESS.encode()),
    "negative size of a chunk": send(CHUNKED + b"-5\r\n{}\r\n"),
    "cut in a chunk": send(CHUNKED + b"ff\r\n" + SUCCESS.encode()),
    "refusal cut in the body": send(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n{"),
    "500": reply(500, REFUSAL),
    "504 of a gateway": reply(504, HTML),
}


@pytest.mark.parametrize("name", [*UNSENT, *SENT])
def test_what_a_later_try_brings_does_not_make_forget_the_first(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append({**UNSENT, **SENT}[name])
    result = run(FIVETRAN_CONNECTOR_ID=UNKNOWN_ID)
    assert result.code == 204
    assert result.truth == (MAYBE if name in SENT else NOT_STARTED)
    assert len(result.waits) == 1
    assert len(fivetran.requests) == (2 if name in SENT else 1)
    assert result.response["code"] == "NotFound_Connection"


def test_a_later_try_that_is_accepted_has_started_the_sync(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([close("answer"), close("connect"), reply(500)])
    assert (run().truth, len(fivetran.requests)) == (STARTED, 3)


def test_a_later_try_that_cannot_connect_does_not_make_forget_the_first(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([close("answer"), *[close("connect")] * 3])
    result = run()
    assert (result.truth, result.code) == (MAYBE, 249)
    assert result.response["code"] == "NoResponse"


# Nobody can be reached in an environment like this, and what must then be named. The
# variables may hold the URL of the local Fivetran, of one with another authority and of
# one with a certificate for another name; and the path of each one's CA bundle.
UNREACHABLE: list[tuple[str, str, str]] = [
    ("HTTPS_PROXY", "http://user:pa55@127.0.0.1:9", "http://127.0.0.1:9: [Errno 111]"),
    (
        "HTTPS_PROXY",
        "http://user:pa55@proxy.invalid",
        "the proxy http://proxy.invalid: ",
    ),
    ("HTTPS_PROXY", "foo", "the proxy foo: "),
    ("HTTPS_PROXY", "http://user:pa55@", "HTTPS_PROXY"),
    ("HTTPS_PROXY", "http://user:pa55@proxy:99999", "HTTPS_PROXY"),
    ("HTTPS_PROXY", "http://user:pa55/word@127.0.0.1:9", "HTTPS_PROXY"),
    ("HTTPS_PROXY", "http://user:pa55@a..b", "a..b"),
    ("HTTPS_PROXY", "http://us%E2%82%AC:pa55@127.0.0.1", "UnicodeEncodeError"),
    ("HTTPS_PROXY", "socks5://user:pa55@127.0.0.1", "SOCKS"),
    ("HTTPS_PROXY", "gopher://user:pa55@127.0.0.1", "gopher"),
    ("HTTPS_PROXY", "{url} ", "HTTPS_PROXY"),
    ("HTTPS_PROXY", "https{url}", "through the proxy https://127.0.0.1:"),
    ("HTTPS_PROXY", "{impostor.url}", "api.fivetran.com"),
    ("REQUESTS_CA_BUNDLE", "{stranger.ca}", "certificate verify failed"),
    ("REQUESTS_CA_BUNDLE", "/missing.pem", "CA bundle /missing.pem cannot be read: "),
    ("REQUESTS_CA_BUNDLE", "/dev/null", "CA bundle /dev/null cannot be read: "),
    ("REQUESTS_CA_BUNDLE", "/proc/self/mem", "CA bundle /proc/self/mem cannot be read"),
]


@pytest.mark.parametrize(("variable", "value", "named"), UNREACHABLE)
def test_where_nobody_can_be_reached_nothing_was_started(
    run: Runner, fivetran: FakeFivetran, variable: str, value: str, named: str
) -> None:
    with FakeFivetran(certified_host="fivetran.example") as other:
        value = value.replace("https{url}", fivetran.proxy_url.replace("http", "https"))
        value = value.replace("{url}", fivetran.proxy_url)
        value = value.replace("{impostor.url}", other.proxy_url)
        value = value.replace("{stranger.ca}", str(other.ca_bundle))
        variables = {variable: value}
        if value == other.proxy_url:
            variables["REQUESTS_CA_BUNDLE"] = str(other.ca_bundle)
        process, line = until_first_wait(run, **variables)
        process.send_signal(signal.SIGTERM)
        result = run.finish(process, line)
        assert (result.truth, result.code) == (NOT_STARTED, 143)
        assert named in line
        assert not fivetran.requests
        assert not other.requests


def test_a_proxy_is_blamed_before_a_ca_bundle_that_is_not_read_yet(run: Runner) -> None:
    bad = {"HTTPS_PROXY": "http://127.0.0.1:9", "REQUESTS_CA_BUNDLE": "/dev/null"}
    process, line = until_first_wait(run, **bad)
    process.send_signal(signal.SIGTERM)
    run.finish(process, line)
    assert "Connection refused" in line


def test_a_proxy_that_echoes_its_password_does_not_uncover_it(
    run: Runner, fivetran: FakeFivetran
) -> None:
    token = base64.b64encode(b"user:pa55@word").decode()
    echo = f"HTTP/1.1 407 user:pa55@word, pa55%40word, {token}\r\n\r\n"
    fivetran.faults.append(send(echo.encode(), stage="connect"))
    url = fivetran.proxy_url.replace("://", "://user:pa55%40word@")
    process, line = until_first_wait(run, HTTPS_PROXY=url)
    process.send_signal(signal.SIGTERM)
    run.finish(process, line)  # which looks for the password
    assert "407 user:***, ***, ***" in line


def until_first_wait(run: Runner, **variables: str) -> tuple[Any, str]:
    """Start the script; return it and its first line on stderr when it waits."""
    process = run.start(**variables)
    assert process.stderr
    line = process.stderr.readline()
    assert "Trying again in " in line
    return process, line


def test_a_run_that_reaches_nobody_ends_as_one_without_an_answer(run: Runner) -> None:
    result = run(HTTPS_PROXY="http://127.0.0.1:9")
    assert (result.truth, result.code) == (NOT_STARTED, 249)
    assert result.response["code"] == "NoResponse"
    assert result.record[0] == CONNECTOR_ID
    assert len(result.waits) == 3


# Ended from outside ---------------------------------------------------------------------

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("stage", ["connect", "handshake", "answer"])
def test_ctrl_c_and_sigterm_end_a_try(
    run: Runner, fivetran: FakeFivetran, number: signal.Signals, stage: str
) -> None:
    run()  # leaves a record of a success
    reached = threading.Event()
    fivetran.faults.append(stall(stage, reached.set))
    process = run.start()
    assert reached.wait(PATIENCE)
    process.send_signal(number)
    result = run.finish(process)
    assert result.code == SIGNALS[number]
    assert result.truth == (MAYBE if stage == "answer" else NOT_STARTED)
    assert result.response["code"] == "NoResponse"
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_ctrl_c_and_sigterm_end_a_wait(
    run: Runner, fivetran: FakeFivetran, number: signal.Signals
) -> None:
    fivetran.faults.append(reply(503, REFUSAL, {"Retry-After": "50"}))
    process, line = until_first_wait(run)
    process.send_signal(number)
    result = run.finish(process, line)
    assert (result.code, result.truth) == (SIGNALS[number], MAYBE)


def test_ctrl_c_may_be_pressed_more_than_once(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(stall("answer"))
    process = run.start()
    assert fivetran.arrived.acquire(timeout=PATIENCE)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
    assert run.finish(process).code == 130


@pytest.mark.parametrize("delay", range(0, 60, 5))
def test_a_run_ended_at_any_moment_tells_the_truth_and_leaves_whole_artifacts(
    run: Runner, delay: int
) -> None:
    """Milliseconds after the first line; the run may have come to its end by itself."""
    process = run.start()
    assert process.stdout
    process.stdout.readline()
    time.sleep(delay / 1000)
    process.send_signal(signal.SIGTERM)
    assert run.finish(process).code in (0, 143)
    assert all(run.kept())


@needs_mounts
def test_sigterm_is_answered_by_the_first_process_of_a_container(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(stall("answer"))
    run.command = ["unshare", "--pid", "--fork", *run.command]
    process = run.start()
    assert fivetran.arrived.acquire(timeout=PATIENCE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    execute(["kill", *children.split()])
    result = run.finish(process)
    assert (result.code, result.truth) == (143, MAYBE)


def test_a_run_that_is_killed_leaves_no_record_of_an_earlier_one(
    run: Runner, fivetran: FakeFivetran
) -> None:
    before = run().record
    fivetran.faults.append(stall("answer"))
    process = run.start()
    while len(fivetran.requests) < 2:
        assert fivetran.arrived.acquire(timeout=PATIENCE)
    process.kill()
    out, err = process.communicate(timeout=PATIENCE)
    killed = Run(process.returncode, out, err, run.folder)
    assert killed.response["code"] == "NoResponse"
    assert killed.record[1] > before[1]


# What this machine does not give ---------------------------------------------------------


def test_where_no_thread_can_be_started_nothing_was_started(run: Runner) -> None:
    # A thread gets a stack as large as -s allows, which -v does not allow.
    limits = 'ulimit -s 4000000 && ulimit -v 2000000 && exec "$@"'
    run.command = ["bash", "-c", limits, "bash", *run.command]
    result = run()
    assert (result.truth, result.code) == (NOT_STARTED, 1)
    assert "thread" in result.last


def test_a_mistake_in_the_script_is_told_as_one(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "requests.py").write_text("")  # of which the script knows nothing
    result = run(PYTHONPATH=str(tmp_path))
    assert (result.truth, result.code) == (NOT_STARTED, 1)
    assert "mistake in this script" in result.last
    assert not result.waits
