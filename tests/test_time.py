"""A run never takes longer than its --timeout, and tries again where that may help."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import (
    CONNECTOR_ID,
    MAYBE,
    NOT_STARTED,
    PATIENCE,
    STARTED,
    Runner,
    in_own_mounts,
    loopback_address,
    needs_mounts,
)
from fake_fivetran import FakeFivetran
from faults import reply, send_and_stall, stall, trickle

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSAL = '{"code": "Refusal", "message": "What Fivetran says."}'

# What would never end by itself. How far a run gets in its time is for the machine to say.
ENDLESS = {
    "proxy": stall("connect"),
    "handshake": stall("handshake"),
    "answer": stall("answer"),
    "half the headers": send_and_stall(HEAD + b"X-Request"),
    "half a body": send_and_stall(HEAD + b'Content-Length: 100\r\n\r\n{"code": "Suc'),
    "a header line that trickles in": trickle(HEAD + b"X: ", b"x"),
    "a body that trickles in": trickle(HEAD + b"\r\n", b" "),
    "chunks that trickle in": trickle(CHUNKED, b"1\r\n \r\n"),
    "interim answers": trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_timeout_ends_what_has_no_end(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.extend([ENDLESS[name]] * 4)
    result = run("--timeout=1.5")
    assert result.code == 249
    assert result.truth == (MAYBE if fivetran.requests else NOT_STARTED)
    assert result.response["code"] == "NoResponse"
    assert result.record[0] == CONNECTOR_ID


def test_the_timeout_ends_what_no_signal_interrupts(
    run: Runner, tmp_path: Path
) -> None:
    fifo = tmp_path / "ca.pem"  # blocks who opens it, in C and without an end
    os.mkfifo(fifo)
    result = run("--timeout=1", REQUESTS_CA_BUNDLE=str(fifo))
    assert (result.code, result.truth) == (249, NOT_STARTED)


def test_ctrl_c_ends_what_no_signal_interrupts(run: Runner, tmp_path: Path) -> None:
    fifo = tmp_path / "ca.pem"
    os.mkfifo(fifo)
    process = run.start(REQUESTS_CA_BUNDLE=str(fifo))
    with fifo.open("wb"):  # succeeds when the script has opened it
        process.send_signal(signal.SIGINT)
        result = run.finish(process)
    assert (result.code, result.truth) == (130, NOT_STARTED)


@needs_mounts
def test_the_timeout_ends_a_name_look_up_without_an_answer(
    run: Runner, tmp_path: Path
) -> None:
    address = loopback_address()
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
    script = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
    run.command = in_own_mounts(script, run.command)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((address, 53))
        result = run("--timeout=2", HTTPS_PROXY=None)
        assert b"\x03api\x08fivetran\x03com" in silent.recv(512)
    assert (result.code, result.truth) == (249, NOT_STARTED)


@pytest.mark.parametrize("seconds", ["0.000001", "1e-300"])
def test_time_that_is_over_at_once_is_told_as_such(
    run: Runner, fivetran: FakeFivetran, seconds: str
) -> None:
    result = run(f"--timeout={seconds}")
    assert (result.code, result.truth) == (249, NOT_STARTED)
    assert not fivetran.requests


def test_a_run_that_was_stopped_past_its_time_tells_what_came_before(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(503, REFUSAL, {"Retry-After": "6"}))
    process = run.start("--timeout=9")
    assert process.stderr
    line = process.stderr.readline()
    process.send_signal(signal.SIGSTOP)
    time.sleep(10)  # there is no other way past the end of its time
    process.send_signal(signal.SIGCONT)
    result = run.finish(process, line)
    assert (result.code, result.truth) == (249, MAYBE)
    assert "HTTP 503" in result.last
    assert result.response["code"] == "Refusal"
    assert len(fivetran.requests) == 1


def test_an_answer_may_take_nearly_all_of_the_time(
    run: Runner, fivetran: FakeFivetran
) -> None:
    """More than a connection may: that time is not for an answer."""
    success = HEAD + b'\r\n{"code": "Success"}'
    slow = stall("answer")._replace(
        act=lambda sock: (time.sleep(7), sock.sendall(success))
    )
    fivetran.faults.append(slow._replace(status=200))
    assert (run().truth, len(fivetran.requests)) == (STARTED, 1)


@needs_mounts
def test_addresses_that_do_not_answer_are_passed(
    run: Runner, fivetran: FakeFivetran, tmp_path: Path
) -> None:
    # The order in which addresses are tried is that of getaddrinfo: nearest first.
    dead = [f"127.0.{random.randint(1, 250)}.{host}" for host in (1, 2)]
    alive = loopback_address()
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"{one} api.fivetran.com\n" for one in [*dead, alive]))
    run.command = in_own_mounts(
        f'mount --bind {hosts} /etc/hosts && exec "$@"', run.command
    )
    with ExitStack() as stack:
        stack.enter_context(fivetran.listen_directly(alive, 443))
        for address in dead:  # full, so that they answer nobody
            server = stack.enter_context(socket.socket())
            server.bind((address, 443))
            server.listen(0)
            for _ in range(2):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((address, 443))
        result = run("--timeout=50", HTTPS_PROXY=None)
    assert (result.code, result.err) == (0, "")
    assert fivetran.tunnels == []


@needs_mounts
@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTPS_PROXY", ""), ("NO_PROXY", "fivetran.com")],
)
def test_without_a_proxy_the_way_is_direct(
    run: Runner, fivetran: FakeFivetran, tmp_path: Path, variable: str, value: str
) -> None:
    address = loopback_address()
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{address} api.fivetran.com\n")
    run.command = in_own_mounts(
        f'mount --bind {hosts} /etc/hosts && exec "$@"', run.command
    )
    with fivetran.listen_directly(address, 443):
        assert run(**{variable: value}).code == 0
    assert fivetran.tunnels == []


# Trying again ----------------------------------------------------------------------------


def test_three_more_tries_with_growing_waits_and_no_more(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([reply(502, REFUSAL)] * 9)
    result = run()
    assert (result.code, result.truth) == (249, MAYBE)
    assert len(fivetran.requests) == 4
    assert len(result.waits) == 3
    for wait, nominal in zip(result.waits, (1, 2, 4)):
        assert 0.74 * nominal <= wait <= 1.26 * nominal
    assert result.waits != [1, 2, 4]
    assert result.response["code"] == "Refusal"


def test_a_wait_is_announced_before_it_begins_and_is_kept(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(429, REFUSAL, {"Retry-After": "3"}))
    process = run.start()
    assert process.stderr
    line = process.stderr.readline()
    announced = time.monotonic()
    assert len(fivetran.requests) == 1
    while len(fivetran.requests) < 2:
        assert fivetran.arrived.acquire(timeout=PATIENCE)
    assert time.monotonic() - announced > 2.9
    result = run.finish(process, line)
    assert (result.truth, result.waits) == (STARTED, [3])


RETRY_AFTER = {" 2 ": 2, "0": 1, "": 1, "-7": 1, "1.5": 1, "\u00b2": 1, "soon": 1}
RETRY_AFTER["Fri, 31 Dec 2060 23:59:59 GMT"] = 1  # promised is: in seconds


@pytest.mark.parametrize("value", RETRY_AFTER)
def test_retry_after_is_obeyed_if_it_is_in_seconds(
    run: Runner, fivetran: FakeFivetran, value: str
) -> None:
    fivetran.faults.append(reply(503, REFUSAL, {"Retry-After": value}))
    process = run.start()
    assert process.stderr
    line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    (wait,) = run.finish(process, line).waits
    assert wait == 2 if RETRY_AFTER[value] == 2 else 0.7 <= wait <= 1.3


@pytest.mark.parametrize("value", ["60", "3600", "9" * 5_000])
def test_a_retry_after_that_does_not_fit_ends_the_run(
    run: Runner, fivetran: FakeFivetran, value: str
) -> None:
    fivetran.faults.append(reply(429, REFUSAL, {"Retry-After": value}))
    result = run()
    assert (result.code, result.truth, result.waits) == (249, NOT_STARTED, [])
    assert len(fivetran.requests) == 1
    assert result.response["code"] == "Refusal"


def test_a_retry_after_on_what_is_final_is_ignored(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(404, REFUSAL, {"Retry-After": "1"}))
    assert run().code == 204
    assert len(fivetran.requests) == 1


def test_the_sync_that_was_lost_and_forced_again_is_the_one_in_the_record(
    run: Runner, fivetran: FakeFivetran
) -> None:
    connection = fivetran.connections[CONNECTOR_ID]
    lost = stall("answer")._replace(act=lambda sock: connection.start())
    fivetran.faults.append(lost)
    result = run()
    assert len(connection.syncs) == 2
    assert result.record[1] > connection.syncs[1]
