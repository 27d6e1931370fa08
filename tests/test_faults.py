"""Whatever the network does, the run ends in time, tells the truth, and keeps a record."""

from __future__ import annotations

import email.utils
import os
import random
import re
import shutil
import signal
import socket
import ssl
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from conftest import CONNECTOR_ID, Run, Runner, execute
from fake_fivetran import FakeFivetran, Fault
from faults import close, reply, reset, send, send_and_stall, stall, trickle

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SUCCESS = '{"code": "Success"}'

# What a loaded machine may add to the time that a process takes, in seconds.
SLACK = 15


def waits(result: Run) -> list[float]:
    """Return the waits that were announced."""
    return [
        float(wait) for wait in re.findall(r"Trying again in (\d+\.\d) s", result.err)
    ]


def no_answer(result: Run) -> str:
    """Check that the run tells of no answer and keeps a record of that."""
    assert result.code == 249
    assert result.response["code"] == "NoResponse"
    assert result.response["message"]
    assert result.record[0] == CONNECTOR_ID
    return result.err.splitlines()[-1]


# The bound on the whole run --------------------------------------------------------------

STALLS = {
    "proxy that never answers": stall("connect"),
    "TLS handshake that never ends": stall("handshake"),
    "no answer": stall("answer"),
    "half a status line": send_and_stall(b"HTTP/1.1 2"),
    "half the headers": send_and_stall(HEAD + b"X-Request"),
    "no body": send_and_stall(HEAD + b"Content-Length: 100\r\n\r\n"),
    "half a body": send_and_stall(HEAD + b'Content-Length: 100\r\n\r\n{"code": "Suc'),
    "half a chunk": send_and_stall(
        HEAD + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"code'
    ),
    "a header line that trickles in": trickle(HEAD + b"X: ", b"x"),
    "headers that trickle in": trickle(HEAD, b"X: y\r\n"),
    "a body that trickles in": trickle(HEAD + b"\r\n", b" "),
    "chunks that trickle in": trickle(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"
    ),
    "interim answers without end": trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", STALLS)
def test_the_timeout_bounds_the_run(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.extend([STALLS[name]] * 4)
    start = time.monotonic()
    result = run("--timeout=2")
    assert time.monotonic() - start < 2 + 2 + SLACK
    assert "may have been started" in no_answer(result)
    assert len(result.err.splitlines()) <= 3


def test_the_timeout_bounds_retries_and_their_waits(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([reply(503)] * 4)
    start = time.monotonic()
    result = run("--timeout=3")
    assert time.monotonic() - start < 3 + 2 + SLACK
    assert result.code == 249
    assert 2 <= len(fivetran.requests) <= 3


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file that blocks whoever opens it, in C and without an end."""
    path = tmp_path / "ca.pickle"  # a name that no test takes for a leftover
    os.mkfifo(path)
    return path


def test_the_timeout_bounds_what_no_signal_interrupts(run: Runner, fifo: Path) -> None:
    process = run.start("--timeout=2", REQUESTS_CA_BUNDLE=str(fifo))
    start = time.monotonic()
    _, err = process.communicate(timeout=2 + 2 + SLACK)
    assert time.monotonic() - start < 2 + 2 + SLACK
    assert process.returncode == 249
    assert "no answer within 2 s" in err
    assert "Traceback" not in err


def loopback_address() -> str:
    """Return an address of this machine that nobody else is likely to use."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"


def can_unshare() -> bool:
    command = [
        "unshare",
        "--mount",
        "mount",
        "--bind",
        "/etc/hosts",
        "/etc/resolv.conf",
    ]
    return bool(shutil.which("unshare")) and not execute(command).returncode


@pytest.mark.skipif(
    not can_unshare(), reason="takes root, to put a resolv.conf in place"
)
def test_the_timeout_bounds_a_name_look_up_that_never_answers(
    run: Runner, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        address = loopback_address()
        silent.bind((address, 53))
        resolv = tmp_path / "resolv.json"  # a name that no test takes for a leftover
        resolv.write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
        script = 'mount --bind resolv.json /etc/resolv.conf && exec "$@"'
        command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            *run.command,
            "--timeout=3",
        ]
        environment = {
            name: v for name, v in run.environment.items() if name != "HTTPS_PROXY"
        }
        start = time.monotonic()
        process = execute(command, cwd=tmp_path, env=environment)
        assert time.monotonic() - start < 3 + 2 + SLACK
        asked = silent.recv(512)
    assert b"\x03api\x08fivetran\x03com" in asked
    assert process.returncode == 249
    assert "no answer within 3 s" in process.stderr


def test_a_slow_answer_is_in_time_as_long_as_the_timeout_is_not_over(
    run: Runner, fivetran: FakeFivetran
) -> None:
    def act(sock: ssl.SSLSocket) -> None:
        time.sleep(3)  # more than half of the timeout
        sock.sendall(HEAD + b"\r\n" + SUCCESS.encode())

    fivetran.faults.append(Fault("answer", act))
    result = run("--timeout=5")
    assert (result.code, result.err) == (0, "")
    assert len(fivetran.requests) == 1


# Trying again ----------------------------------------------------------------------------

PASSING = {
    "proxy closes": close("connect"),
    "proxy resets": reset("connect"),
    "proxy cannot reach Fivetran": send(
        b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "connect"
    ),
    "closed in the handshake": close("handshake"),
    "reset in the handshake": reset("handshake"),
    "closed without an answer": close("answer"),
    "reset without an answer": reset("answer"),
    "cut in the headers": send(HEAD + b"Conte"),
    "body cut short": send(HEAD + b'Content-Length: 100\r\n\r\n{"code": "Success"}'),
    "chunk cut short": send(
        HEAD + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"code": "Success"}'
    ),
    "429": reply(429, '{"code": "RateLimited", "message": "slow down"}'),
    "500": reply(500, '{"code": "ServerError", "message": "oops"}'),
    "500 that claims Success": reply(500, SUCCESS),
    "502 in HTML": reply(
        502, "<html>Bad Gateway</html>", {"Content-Type": "text/html"}
    ),
    "503 without a body": reply(503),
    "504": reply(504, "upstream request timeout"),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append(PASSING[name])
    result = run()
    assert result.code == 0
    assert result.response["code"] == "Success"
    assert len(result.err.splitlines()) == 1
    (wait,) = waits(result)
    assert 0.7 <= wait <= 1.3
    assert len(fivetran.tunnels) == 2
    assert fivetran.connections[CONNECTOR_ID].syncing


@pytest.mark.parametrize("stage", ["connect", "handshake"])
def test_a_connection_that_stalls_is_tried_again(
    run: Runner, fivetran: FakeFivetran, stage: str
) -> None:
    fivetran.faults.append(stall(stage))
    result = run("--timeout=8")
    assert result.code == 0
    assert "timed out" in result.err
    assert len(waits(result)) == 1


def test_a_connection_that_is_refused_is_tried_again(run: Runner) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        process = run.start(HTTPS_PROXY=f"http://127.0.0.1:{port}")
        assert process.stderr is not None
        line = process.stderr.readline()
    assert "Connection refused" in line
    assert "Trying again in " in line
    credentials = (
        run.environment["FIVETRAN_API_KEY"],
        run.environment["FIVETRAN_API_SECRET"],
    )
    with FakeFivetran(*credentials, (CONNECTOR_ID,), port=port) as late:
        shutil.copy(late.ca_bundle, run.environment["REQUESTS_CA_BUNDLE"])
        assert run.finish(process).code == 0


def test_three_more_tries_with_growing_waits_and_no_more(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([reply(502, '{"code": "Bad", "message": "gateway"}')] * 9)
    result = run()
    assert result.code == 249
    assert len(fivetran.requests) == 4
    assert len(result.err.splitlines()) == 4
    for wait, nominal in zip(waits(result), (1, 2, 4)):
        assert 0.74 * nominal <= wait <= 1.26 * nominal
    assert len(waits(result)) == 3
    assert result.response == {"code": "Bad", "message": "gateway"}


def test_waits_are_announced_with_their_reason_before_they_begin(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(503, '{"code": "Busy", "message": "at work"}'))
    process = run.start()
    assert process.stderr is not None
    line = process.stderr.readline()
    assert len(fivetran.requests) == 1
    assert re.search(r"HTTP 503.*Busy: at work\. Trying again in \d\.\d s$", line)
    assert run.finish(process).code == 0


def test_waits_are_jittered(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.extend([reply(503)] * 12)
    seen = [waits(run("--timeout=2.5")) for _ in range(4)]
    assert all(seen)
    assert len({wait for one in seen for wait in one[:1]}) > 1


def test_an_answer_that_was_lost_does_not_spoil_the_record(
    run: Runner, fivetran: FakeFivetran
) -> None:
    """The sync has been started, the answer gets lost, the second try gets one."""
    connection = fivetran.connections[CONNECTOR_ID]

    def act(sock: ssl.SSLSocket) -> None:
        connection.start()

    fivetran.faults.append(Fault("answer", act))
    result = run()
    assert result.code == 0
    assert len(connection.syncs) == 2
    assert result.record[1] > connection.syncs[1]


RETRY_AFTER = {
    "1": (0.9, 1.1),
    "2": (1.9, 2.1),
    " 2 ": (1.9, 2.1),
    # What makes no sense is ignored.
    "": (0.7, 1.3),
    "soon": (0.7, 1.3),
    "-7": (0.7, 1.3),
    "1.5": (0.7, 1.3),
    "1e1": (0.7, 1.3),
    "inf": (0.7, 1.3),
    "9" * 5000: (0.7, 1.3),
    "Mon, 99 Foo 99999 99:99:99 GMT": (0.7, 1.3),
    "2, 3": (0.7, 1.3),
    # So is what has passed.
    "0": (0.7, 1.3),
    "Fri, 31 Dec 1999 23:59:59 GMT": (0.7, 1.3),
}


@pytest.mark.parametrize("value", RETRY_AFTER, ids=lambda value: value[:40] or "blank")
def test_retry_after_is_obeyed_where_it_makes_sense(
    run: Runner, fivetran: FakeFivetran, value: str
) -> None:
    least, most = RETRY_AFTER[value]
    fivetran.faults.append(reply(429, "{}", {"Retry-After": value}))
    result = run()
    assert result.code == 0
    (wait,) = waits(result)
    assert least <= wait <= most


def test_retry_after_may_be_a_date(run: Runner, fivetran: FakeFivetran) -> None:
    date = email.utils.formatdate(time.time() + 6, usegmt=True)
    fivetran.faults.append(reply(503, "{}", {"Retry-After": date}))
    result = run()
    assert result.code == 0
    (wait,) = waits(result)
    assert 0.5 <= wait <= 6


def test_the_wait_that_retry_after_asks_for_is_kept(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(429, "{}", {"Retry-After": "3"}))
    start = time.monotonic()
    assert run().code == 0
    assert time.monotonic() - start >= 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_that_does_not_fit_ends_the_run_at_once_and_is_told(
    run: Runner, fivetran: FakeFivetran, status: int
) -> None:
    fivetran.faults.append(reply(status, '{"code": "Later"}', {"Retry-After": "3600"}))
    start = time.monotonic()
    result = run("--timeout=50")
    assert time.monotonic() - start < SLACK
    assert result.code == 249
    assert "3600 s" in result.err
    assert not waits(result)
    assert len(fivetran.requests) == 1
    assert result.response == {"code": "Later"}


def test_retry_after_on_an_answer_that_is_final_is_ignored(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(404, "{}", {"Retry-After": "1"}))
    assert run().code == 204
    assert len(fivetran.requests) == 1


# What cannot mend ------------------------------------------------------------------------


def final(result: Run) -> str:
    """Check that the run ended without another try; return the line that says why."""
    assert not waits(result)
    (line,) = result.err.splitlines()
    return line


def test_an_unknown_authority_is_not_trusted(
    run: Runner, fivetran: FakeFivetran
) -> None:
    with FakeFivetran() as other:
        result = run(REQUESTS_CA_BUNDLE=str(other.ca_bundle))
    line = final(result)
    assert "certificate verify failed" in line
    assert "REQUESTS_CA_BUNDLE" in line
    no_answer(result)
    assert fivetran.requests == []


def test_a_certificate_for_another_name_is_not_trusted(run: Runner) -> None:
    with FakeFivetran(certified_host="api.fivetran.example") as impostor:
        result = run(
            HTTPS_PROXY=impostor.proxy_url, REQUESTS_CA_BUNDLE=str(impostor.ca_bundle)
        )
        assert "certificate verify failed" in final(result)
        assert impostor.requests == []


@pytest.mark.parametrize("name", ["missing.pem", "empty.pickle"])
def test_a_bad_ca_file_is_told(
    run: Runner, fivetran: FakeFivetran, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty.pickle").touch()
    result = run(REQUESTS_CA_BUNDLE=str(tmp_path / name))
    assert "REQUESTS_CA_BUNDLE" in final(result)
    no_answer(result)
    assert fivetran.requests == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407])
def test_a_proxy_that_refuses_is_told(
    run: Runner, fivetran: FakeFivetran, status: int
) -> None:
    refusal = f"HTTP/1.1 {status} Not you\r\nContent-Length: 0\r\n\r\n".encode()
    fivetran.faults.append(send(refusal, "connect"))
    result = run()
    line = final(result)
    assert f"{status} Not you" in line
    assert "HTTPS_PROXY" in line
    no_answer(result)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:pa55word@proxy:99999",
        "http://user:pa55word@a..b:80",
        "http://user:pa55/word@127.0.0.1:80",
        "http://user:pa55 word@127.0.0.1:999999",
        "socks5://user:pa55word@127.0.0.1:80",
        "gopher://user:pa55word@127.0.0.1:80",
        "http://user:pa55word@",
        "://user:pa55word@x",
    ],
)
def test_a_proxy_url_that_cannot_be_used_is_told_without_its_password(
    run: Runner, fivetran: FakeFivetran, proxy: str
) -> None:
    result = run("--timeout=20", HTTPS_PROXY=proxy)
    assert result.code == 249
    assert "HTTPS_PROXY" in result.err
    kept = result.response_path.read_text()
    assert "pa55" not in result.out + result.err + kept
    assert result.response["code"] == "NoResponse"
    assert fivetran.requests == []


def test_a_proxys_password_is_not_shown_when_it_cannot_be_reached(run: Runner) -> None:
    result = run("--timeout=3", HTTPS_PROXY="http://user:pa55word@127.0.0.1:9")
    assert "Connection refused" in no_answer(result)
    assert "pa55" not in result.out + result.err + result.response_path.read_text()


def test_an_unknown_proxy_name_is_told(run: Runner) -> None:
    result = run("--timeout=3", HTTPS_PROXY="http://proxy.invalid:8080")
    assert "HTTPS_PROXY" in no_answer(result)


@pytest.mark.skipif(not can_unshare(), reason="takes root, to give a name an address")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", ""),
        ("NO_PROXY", "api.fivetran.com"),
        ("NO_PROXY", "fivetran.com"),
    ],
)
def test_without_a_proxy_the_way_is_direct(
    run: Runner, fivetran: FakeFivetran, tmp_path: Path, variable: str, value: str
) -> None:
    address = loopback_address()
    (tmp_path / "hosts.json").write_text(f"{address} api.fivetran.com\n")
    script = 'mount --bind hosts.json /etc/hosts && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *run.command]
    with fivetran.listen_directly(address, 443):
        environment = {**run.environment, variable: value}
        process = execute(command, cwd=tmp_path, env=environment)
    assert process.returncode == 0, process.stderr
    assert fivetran.tunnels == []
    assert fivetran.connections[CONNECTOR_ID].syncing


# Ended from outside ----------------------------------------------------------------------


def wait_for_request(fivetran: FakeFivetran) -> None:
    deadline = time.monotonic() + SLACK
    while not fivetran.requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_ends_the_run_at_once_while_it_waits_for_an_answer(
    run: Runner, fivetran: FakeFivetran
) -> None:
    run()  # leaves a record of a success
    fivetran.requests.clear()
    fivetran.faults.append(stall("answer"))
    process = run.start()
    wait_for_request(fivetran)
    process.send_signal(signal.SIGINT)
    result = run.finish(process)
    assert result.code == 130
    (line,) = result.err.splitlines()
    assert "Interrupted" in line
    assert "may have been started" in line
    assert result.response["code"] == "NoResponse"


def test_ctrl_c_may_be_pressed_more_than_once(
    run: Runner, fivetran: FakeFivetran
) -> None:
    for _ in range(3):
        fivetran.requests.clear()
        fivetran.faults.append(stall("answer"))
        process = run.start()
        wait_for_request(fivetran)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "Interrupted" in process.stderr.readline()
        for _ in range(20):
            process.send_signal(signal.SIGINT)
        assert run.finish(process).code == 130


def test_ctrl_c_ends_a_wait(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(reply(503, "{}", {"Retry-After": "50"}))
    process = run.start()
    assert process.stderr is not None
    assert "Trying again" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert run.finish(process).code == 130


def test_ctrl_c_ends_what_no_signal_interrupts(run: Runner, fifo: Path) -> None:
    process = run.start(REQUESTS_CA_BUNDLE=str(fifo))
    assert process.stdout is not None
    assert "Forcing" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SLACK)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_leaves_no_record_of_an_earlier_one(
    run: Runner, fivetran: FakeFivetran, number: signal.Signals
) -> None:
    assert run().response["code"] == "Success"
    before = datetime.now(timezone.utc)
    fivetran.requests.clear()
    fivetran.faults.append(stall("answer"))
    process = run.start()
    wait_for_request(fivetran)
    process.send_signal(number)
    result = run.finish(process)
    assert result.code == -number
    assert result.err == ""
    assert result.response["code"] == "NoResponse"
    assert result.record[1] > before


def test_a_run_without_an_answer_replaces_the_record_of_a_success(
    run: Runner, fivetran: FakeFivetran
) -> None:
    assert run().response["code"] == "Success"
    before = datetime.now(timezone.utc)
    fivetran.faults.append(stall("answer"))
    result = run("--timeout=1")
    no_answer(result)
    assert result.record[1] > before


def test_a_body_that_is_cut_short_every_time_is_kept_as_far_as_it_came(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend(
        [send(HEAD + b'Content-Length: 100\r\n\r\n{"code": "Succ')] * 4
    )
    result = run("--timeout=1.5")
    assert result.code == 249
    assert result.response["code"] == "InvalidResponse"
    assert result.response["body"] == '{"code": "Succ'
