"""Every run ends with the right exit code, and says the truth about the sync.

Runner.check_truth compares what each of these runs says with what the local Fivetran saw.
"""

from __future__ import annotations

import base64
import gzip
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    CONNECTOR_ID,
    MAYBE,
    NOT_STARTED,
    PATIENCE,
    RESPONSE,
    STARTED,
    UNKNOWN_ID,
    Run,
    Runner,
    execute,
    needs_mounts,
)
from fake_fivetran import FakeFivetran, Fault
from faults import (
    CHUNKED,
    HTML,
    LATER,
    OK,
    REFUSAL,
    SUCCESS,
    close,
    reply,
    reset,
    send,
    stall,
)

# One answer, and how the run ends: what it says of the sync, its exit code, and the code
# in the stored response.
ANSWERS: dict[str, tuple[Fault, str, int, str]] = {
    "200": (reply(200, SUCCESS), STARTED, 0, "Success"),
    "299": (reply(299, SUCCESS), STARTED, 0, "Success"),
    "in chunks": (
        send(
            CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SUCCESS), SUCCESS.encode()), 200
        ),
        STARTED,
        0,
        "Success",
    ),
    "to the end of the connection": (
        send(OK + b"\r\n" + SUCCESS.encode(), 200),
        STARTED,
        0,
        "Success",
    ),
    "after an interim answer": (
        send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n" + SUCCESS.encode(), 200),
        STARTED,
        0,
        "Success",
    ),
    "odd header": (
        reply(200, SUCCESS, {"Content-Type": "application/json; charset"}),
        STARTED,
        0,
        "Success",
    ),
    "300": (reply(300, REFUSAL), NOT_STARTED, 201, "Refusal"),
    "400": (reply(400, REFUSAL), NOT_STARTED, 201, "Refusal"),
    "401": (reply(401, REFUSAL), NOT_STARTED, 200, "Refusal"),
    "403": (reply(403, REFUSAL), NOT_STARTED, 200, "Refusal"),
    "404": (reply(404, REFUSAL), NOT_STARTED, 204, "Refusal"),
    "409": (reply(409, REFUSAL), NOT_STARTED, 203, "Refusal"),
    "429": (reply(429, REFUSAL, LATER), NOT_STARTED, 249, "Refusal"),
    "499": (reply(499, SUCCESS), NOT_STARTED, 201, "Success"),
    "500": (reply(500, REFUSAL, LATER), MAYBE, 249, "Refusal"),
    "600": (reply(600, REFUSAL), MAYBE, 249, "Refusal"),
    "200 without success": (reply(200, REFUSAL), MAYBE, 249, "Refusal"),
}
# What is no JSON object is not Fivetran's word, whatever its status.
NO_ANSWERS: dict[str, tuple[Fault, str]] = {
    "redirect": (reply(307, "", {"Location": "/elsewhere"}), NOT_STARTED),
    "firewall": (reply(403, HTML), NOT_STARTED),
    "portal": (reply(200, HTML), MAYBE),
    "no content": (send(b"HTTP/1.1 204 No Content\r\n\r\n", 204), MAYBE),
    "nothing in chunks": (send(CHUNKED + b"0\r\n\r\n", 200), MAYBE),
    "list": (reply(200, f"[{SUCCESS}]"), MAYBE),
    "half an object": (reply(200, SUCCESS[:-1]), MAYBE),
    "invalid UTF-8": (reply(200, b'{"code": "Success", "x": "\xff"}'), MAYBE),
    "nested too deep": (reply(200, '{"code": "Success", "x": ' + "[" * 50_000), MAYBE),
    "too large": (reply(200, SUCCESS.ljust(65_537)), MAYBE),
    "compressed": (
        reply(200, gzip.compress(SUCCESS.encode()), {"Content-Encoding": "gzip"}),
        MAYBE,
    ),
}
for name, (answer, truth) in NO_ANSWERS.items():
    ANSWERS[name] = (answer, truth, 249, "InvalidResponse")


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_decides(run: Runner, fivetran: FakeFivetran, name: str) -> None:
    answer, *expected = ANSWERS[name]
    fivetran.faults.append(answer)
    result = run()
    assert [result.truth, result.code, result.response["code"]] == expected
    assert result.record[0] == CONNECTOR_ID
    assert len(fivetran.requests) == len(fivetran.tunnels) == 1


def test_what_is_sent_forces_a_sync_and_asks_for_a_plain_answer(
    run: Runner, fivetran: FakeFivetran
) -> None:
    assert run().code == 0
    (request,) = fivetran.requests
    assert request.path == f"/v1/connections/{CONNECTOR_ID}/sync"
    assert request.body == b'{"force": true}'
    assert request.headers["accept-encoding"] == "identity"


def test_a_wrong_secret_and_an_unknown_connector_are_refused(run: Runner) -> None:
    assert run(FIVETRAN_API_SECRET="something else").code == 200
    assert run(FIVETRAN_CONNECTOR_ID=UNKNOWN_ID).code == 204


# What breaks before a request is complete: nothing can have been started.
UNSENT = {
    "proxy closes": close("connect"),
    "proxy refuses": send(
        b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", stage="connect"
    ),
    "proxy speaks another protocol": send(b"SSH-2.0-OpenSSH_9.2\r\n", stage="connect"),
    "proxy stalls": stall("connect"),
    "closed in the handshake": close("handshake"),
    "reset in the handshake": reset("handshake"),
    "TLS alert": send(b"\x15\x03\x03\x00\x02\x02\x28", stage="handshake"),
    "handshake stalls": stall("handshake"),
}
# What breaks afterwards: something may have been.
SENT = {
    "closed without an answer": close("answer"),
    "reset without an answer": reset("answer"),
    "another protocol": send(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "headers without end": send(OK + b"X: y\r\n" * 1_000),
    "cut in the headers": send(OK + b"Conte"),
    "cut in the body": send(OK + b"Content-Length: 99\r\n\r\n" + SUCCESS.encode()),
    "negative size of a chunk": send(CHUNKED + b"-5\r\n{}\r\n"),
    "cut in a chunk": send(CHUNKED + b"ff\r\n" + SUCCESS.encode()),
    "refusal cut in the body": send(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n{"),
    "500": reply(500, REFUSAL),
    "520 of a gateway": reply(520, HTML),
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


def test_a_run_that_reaches_nobody_ends_as_one_without_an_answer(run: Runner) -> None:
    result = run(HTTPS_PROXY="http://127.0.0.1:9")
    assert (result.truth, result.code) == (NOT_STARTED, 249)
    assert result.response["code"] == "NoResponse"
    assert result.record[0] == CONNECTOR_ID


# Nobody can be reached with a proxy or a CA bundle like this, and what must then be named.
# {url} is the proxy of the local Fivetran; {other.url} and {other.ca} are proxy and CA
# bundle of one with another authority, and with a certificate for another name.
UNREACHABLE: list[tuple[str, str | None, str]] = [
    ("http://user:pa55@127.0.0.1:9", None, "proxy http://127.0.0.1:9: [Errno 111]"),
    ("http://127.0.0.1:9", "/dev/null", "[Errno 111]"),  # no bundle is read yet
    ("http://user:pa55@", None, "HTTPS_PROXY"),
    ("http://user:pa55/word@127.0.0.1:9", None, "HTTPS_PROXY"),
    ("http://user:x[pa55]y@127.0.0.1:9", None, "no connection to"),
    ("http://user:pa55\u2100word@127.0.0.1:9", None, "HTTPS_PROXY"),
    ("http://user:pa55@a..b", None, "a..b"),
    ("http://us%E2%82%AC:pa55@127.0.0.1", None, "UnicodeEncodeError"),
    ("socks5://user:pa55@127.0.0.1", None, "SOCKS"),
    ("gopher://user:pa55@127.0.0.1", None, "gopher"),
    ("{url} ", None, "HTTPS_PROXY"),
    ("https{url}", None, "through the proxy https://127.0.0.1:"),
    ("{other.url}", "{other.ca}", "api.fivetran.com"),
    ("{url}", "{other.ca}", "certificate verify failed"),
    ("{url}", "/missing.pem", "CA bundle /missing.pem cannot be read: "),
    ("{url}", "/dev/null", "CA bundle /dev/null cannot be read: "),
]


@pytest.mark.parametrize(("proxy", "bundle", "named"), UNREACHABLE)
def test_where_nobody_can_be_reached_nothing_was_started(
    run: Runner, fivetran: FakeFivetran, proxy: str, bundle: str | None, named: str
) -> None:
    with FakeFivetran(certified_host="fivetran.example") as other:
        proxy = proxy.replace("https{url}", fivetran.proxy_url.replace("http", "https"))
        proxy = proxy.replace("{url}", fivetran.proxy_url)
        variables = {"HTTPS_PROXY": proxy.replace("{other.url}", other.proxy_url)}
        if bundle:
            path = bundle.replace("{other.ca}", str(other.ca_bundle))
            variables["REQUESTS_CA_BUNDLE"] = path
        process, line = run.until_first_wait(**variables)
        process.send_signal(signal.SIGTERM)
        result = run.finish(process, line)
        assert (result.truth, result.code) == (NOT_STARTED, 143)
        assert named in line
        assert not fivetran.requests
        assert not other.requests


def test_a_proxy_that_echoes_its_password_does_not_uncover_it(
    run: Runner, fivetran: FakeFivetran
) -> None:
    written = "pa55%40w%C3%B6rd"
    token = base64.b64encode("user:pa55@wörd".encode("latin-1")).decode()
    echo = f"HTTP/1.1 407 user:pa55@wörd, {written}, {token}\r\n\r\n"
    fivetran.faults.append(send(echo.encode("latin-1"), stage="connect"))
    url = fivetran.proxy_url.replace("://", f"://user:{written}@")
    process, line = run.until_first_wait(HTTPS_PROXY=url)
    process.send_signal(signal.SIGTERM)
    run.finish(process, line)  # which looks for the password
    assert "407 user:***, ***, ***" in line


# Ended from outside ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "stage", "code", "truth"),
    [
        (signal.SIGTERM, "connect", 143, NOT_STARTED),
        (signal.SIGINT, "handshake", 130, NOT_STARTED),
        (signal.SIGTERM, "answer", 143, MAYBE),
        (signal.SIGINT, "answer", 130, MAYBE),
    ],
)
def test_ctrl_c_and_sigterm_end_a_try(
    run: Runner,
    fivetran: FakeFivetran,
    number: signal.Signals,
    stage: str,
    code: int,
    truth: str,
) -> None:
    run()  # leaves a record of a success
    reached = threading.Event()
    fivetran.faults.append(stall(stage, then=reached.set))
    process = run.start()
    assert reached.wait(PATIENCE)
    process.send_signal(number)
    result = run.finish(process)
    assert (result.code, result.truth) == (code, truth)
    assert result.response["code"] == "NoResponse"
    assert len(result.err.splitlines()) == 1


def test_sigterm_ends_a_wait(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(reply(503, REFUSAL, {"Retry-After": "50"}))
    process, line = run.until_first_wait()
    process.send_signal(signal.SIGTERM)
    result = run.finish(process, line)
    assert (result.code, result.truth) == (143, MAYBE)
    assert "HTTP 503" in result.last
    assert result.response["code"] == "Refusal"


def test_ctrl_c_may_be_pressed_more_than_once(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(stall("answer"))
    process = run.start()
    assert fivetran.arrived.acquire(timeout=PATIENCE)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
    assert run.finish(process).code == 130


@pytest.mark.parametrize("delay", [0, 10, 20, 30, 40])
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


def test_nothing_is_sent_after_it_was_told_what_is_true(
    run: Runner, fivetran: FakeFivetran
) -> None:
    """A full pipe holds up the last line, and meanwhile the connection comes about."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    told, over = threading.Event(), threading.Event()
    received: list[bytes] = []

    def act(sock: Any) -> None:
        told.wait(PATIENCE)
        with suppress(OSError), fivetran.tls.wrap_socket(sock, server_side=True) as tls:
            while not received or (received[-1] and b"force" not in received[-1]):
                received.append(tls.recv(65536))
        over.set()

    fivetran.faults.append(Fault("handshake", act))
    process = subprocess.Popen(
        [*run.command, "--timeout=2"],
        cwd=run.folder,
        env=run.environment,
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.close(writer)
    kept = run.artifacts / RESPONSE
    for _ in range(100 * PATIENCE):
        if kept.exists() and b" within 2 s" in kept.read_bytes():
            break
        time.sleep(0.01)
    told.set()
    assert over.wait(PATIENCE)
    with os.fdopen(reader, "rb") as pipe:
        assert b"The sync was not started" in pipe.read()
    assert process.wait(PATIENCE) == 249
    assert b"force" not in b"".join(received)


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
    reached = threading.Event()
    fivetran.faults.append(stall("answer", then=reached.set))
    process = run.start()
    assert reached.wait(PATIENCE)
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
