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
    needs_mounts,
)
from fake_fivetran import FakeFivetran
from faults import CHUNKED, OK, REFUSAL, SUCCESS, after, pour, reply, send, stall

# What would never end by itself. How far a run gets in its time is for the machine to say.
FOR_EVER = 10**6
ENDLESS = {
    "proxy": stall("connect"),
    "answer": stall("answer"),
    "half a body": stall("answer", OK + b'Content-Length: 100\r\n\r\n{"code": "Suc'),
    "a header that trickles in": pour(OK + b"X: ", b"x", 0.05, FOR_EVER),
    "chunks that trickle in": pour(CHUNKED, b"1\r\n \r\n", 0.05, FOR_EVER),
    "interim answers": pour(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05, FOR_EVER),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_timeout_ends_what_has_no_end(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.extend([ENDLESS[name]] * 4)
    result = run("--timeout=1.5")
    assert result.code == 249
    assert result.response["code"] == "NoResponse"
    assert result.record[0] == CONNECTOR_ID


@pytest.fixture
def endless_file(tmp_path: Path) -> Path:
    """Whoever opens it waits for a writer, in C, where no signal interrupts Python."""
    path = tmp_path / "ca.pem"
    os.mkfifo(path)
    return path


def test_the_timeout_ends_what_no_signal_interrupts(
    run: Runner, endless_file: Path
) -> None:
    result = run("--timeout=1", REQUESTS_CA_BUNDLE=str(endless_file))
    assert (result.code, result.truth) == (249, NOT_STARTED)


def test_ctrl_c_ends_what_no_signal_interrupts(run: Runner, endless_file: Path) -> None:
    process = run.start(REQUESTS_CA_BUNDLE=str(endless_file))
    with endless_file.open("wb"):  # succeeds when the script has opened it
        process.send_signal(signal.SIGINT)
        result = run.finish(process)
    assert (result.code, result.truth) == (130, NOT_STARTED)


def test_a_run_that_was_stopped_past_its_time_tells_what_came_before(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(503, REFUSAL, {"Retry-After": "3"}))
    process, line = run.until_first_wait("--timeout=8")
    process.send_signal(signal.SIGSTOP)
    time.sleep(8)  # there is no other way past the end of its time
    process.send_signal(signal.SIGCONT)
    result = run.finish(process, line)
    assert (result.code, result.truth) == (249, MAYBE)
    assert "HTTP 503" in result.last
    assert result.response["code"] == "Refusal"
    assert len(fivetran.requests) == 1


def test_an_answer_may_take_longer_than_a_connection(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(after(reply(200, SUCCESS), lambda: time.sleep(6)))
    assert (run().truth, len(fivetran.requests)) == (STARTED, 1)


# Without a proxy -------------------------------------------------------------------------


def loopback_address(port: int, kind: int = socket.SOCK_STREAM) -> str:
    """Return an address of this machine where nobody else is likely to use the port."""
    low, middle, high = random.choices(range(2, 250), k=3)
    address = f"127.{high}.{middle}.{low}"
    with socket.socket(socket.AF_INET, kind) as trial:
        try:
            trial.bind((address, port))
        except OSError as error:
            pytest.skip(f"port {port}: {error}")
    return address


def replace_file(run: Runner, path: str, content: str) -> None:
    """Let this script, and nothing else, find another content in a file of the system."""
    other = run.folder.parent / Path(path).name
    other.write_text(content)
    script = f'mount --bind {other} {path} && exec "$@"'
    run.command = in_own_mounts(script, run.command)


@pytest.fixture
def resolver(run: Runner) -> None:
    """Let names be looked up in the files that a test replaces, and nowhere else."""
    replace_file(run, "/etc/nsswitch.conf", "hosts: files dns\n")


@needs_mounts
@pytest.mark.usefixtures("resolver")
def test_the_timeout_ends_a_name_look_up_without_an_answer(run: Runner) -> None:
    address = loopback_address(53, socket.SOCK_DGRAM)
    servers = f"nameserver {address}\noptions timeout:30 attempts:5\n"
    replace_file(run, "/etc/resolv.conf", servers)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.settimeout(PATIENCE)
        silent.bind((address, 53))
        result = run("--timeout=2", HTTPS_PROXY=None)
        assert b"\x03api\x08fivetran\x03com" in silent.recv(512)
    assert (result.code, result.truth) == (249, NOT_STARTED)


@needs_mounts
@pytest.mark.usefixtures("resolver")
def test_addresses_that_do_not_answer_are_passed_after_five_seconds(
    run: Runner, fivetran: FakeFivetran
) -> None:
    # The order in which addresses are tried is that of getaddrinfo: nearest first.
    dead = [f"127.0.{random.randint(1, 250)}.{host}" for host in (1, 2)]
    alive = loopback_address(443)
    hosts = "".join(f"{address} api.fivetran.com\n" for address in [*dead, alive])
    replace_file(run, "/etc/hosts", hosts)
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
        before = time.monotonic()
        result = run("--timeout=30", HTTPS_PROXY=None)
        assert time.monotonic() - before >= 10
    assert (result.code, result.err) == (0, "")
    assert fivetran.tunnels == []


@needs_mounts
@pytest.mark.usefixtures("resolver")
@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTPS_PROXY", ""), ("NO_PROXY", "fivetran.com")],
)
def test_without_a_proxy_the_way_is_direct(
    run: Runner, fivetran: FakeFivetran, variable: str, value: str
) -> None:
    address = loopback_address(443)
    replace_file(run, "/etc/hosts", f"{address} api.fivetran.com\n")
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
        assert 0.7 * nominal <= wait <= 1.3 * nominal
    assert result.response["code"] == "Refusal"


def test_runs_that_fail_together_do_not_come_back_together(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([reply(502, REFUSAL)] * 10)
    waits = []
    for _ in range(10):
        process, line = run.until_first_wait()
        process.send_signal(signal.SIGTERM)
        waits += run.finish(process, line).waits
    assert len(set(waits)) > 1  # of 5 that there can be


def test_a_wait_is_announced_and_kept(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(reply(429, REFUSAL, {"Retry-After": "3"}))
    result = run()
    assert (result.truth, result.waits) == (STARTED, [3])
    first, second = fivetran.requests
    assert second.at - first.at >= 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(" 2 ", 2), ("0", 1), ("1.5", 1), ("Fri, 31 Dec 2060 23:59:59 GMT", 1)],
)
def test_retry_after_is_obeyed_if_it_is_in_seconds(
    run: Runner, fivetran: FakeFivetran, value: str, seconds: int
) -> None:
    fivetran.faults.append(reply(503, REFUSAL, {"Retry-After": value}))
    process, line = run.until_first_wait()
    process.send_signal(signal.SIGINT)
    (wait,) = run.finish(process, line).waits
    assert wait == 2 if seconds == 2 else 0.7 <= wait <= 1.3


@pytest.mark.parametrize("value", ["60", "9" * 5_000])
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
    fivetran.faults.append(after(send(b""), connection.start))
    result = run()
    assert len(connection.syncs) == 2
    assert result.record[1] > connection.syncs[1]
