"""A run never takes longer than its --timeout, and tries again where that may help."""

import os
import random
import signal
import socket
import time

import pytest
from conftest import CONNECTOR_ID, MAYBE, NOT_STARTED, PATIENCE, STARTED, needs_mounts
from fake_fivetran import Fault
from faults import CHUNKED, OK, after, answer, page, pour, send, stall

# What would never end by itself. How far a run gets in its time is for the machine to say.
FOR_EVER = 10**6
ENDLESS = {
    "proxy": stall("connect"),
    "handshake": stall("handshake"),
    "answer": stall("answer"),
    "a header that trickles in": pour(OK + b"X: ", b"x", 0.05, FOR_EVER),
    "chunks that trickle in": pour(CHUNKED, b"1\r\n \r\n", 0.05, FOR_EVER),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_timeout_ends_what_has_no_end(run, fivetran, name):
    fivetran.faults.append(ENDLESS[name])
    result = run("--timeout=1.5")
    assert result.code == 249
    assert ": not within 1.5 s. " in result.last
    assert result.response["code"] == "NoResponse"


@pytest.fixture
def endless_file(tmp_path):
    """Whoever opens it waits for a writer, in C, where no signal interrupts Python."""
    path = tmp_path / "ca.pem"
    os.mkfifo(path)
    return path


def test_the_timeout_ends_what_no_signal_interrupts(run, endless_file):
    result = run("--timeout=1", REQUESTS_CA_BUNDLE=str(endless_file))
    assert (result.code, result.truth) == (249, NOT_STARTED)


def test_ctrl_c_ends_what_no_signal_interrupts(run, endless_file):
    process = run.start(REQUESTS_CA_BUNDLE=str(endless_file))
    with endless_file.open("wb"):  # succeeds when the script has opened it
        process.send_signal(signal.SIGINT)
        result = run.finish(process)
    assert (result.code, result.truth) == (130, NOT_STARTED)


@pytest.mark.parametrize(
    ("stage", "missing"),
    [("answer", "no complete answer from"), ("handshake", "no connection to")],
)
def test_time_that_is_over_is_told_with_the_try_before(run, fivetran, stage, missing):
    fivetran.faults.extend([page(503, headers={"Retry-After": "5"}), stall(stage)])
    result = run("--timeout=10")
    assert time.monotonic() - fivetran.requests[0].at < 14  # of both tries and the wait
    through = "api.fivetran.com, through the proxy in HTTPS_PROXY or ALL_PROXY"
    assert f": {missing} {through}: not within 10 s, after HTTP 503, " in result.last
    assert (result.code, result.truth) == (249, MAYBE)


def test_a_proxy_may_take_six_seconds_to_connect(run, fivetran):
    def connect_slowly(sock):
        time.sleep(6)
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with fivetran.tls.wrap_socket(sock, server_side=True) as tls:
            while b"true}" not in tls.recv(65536):
                pass
            answer(403).act(tls)

    fivetran.faults.append(Fault("connect", connect_slowly))
    result = run()
    assert (result.code, result.waits) == (200, [])


def test_an_answer_may_take_longer_than_a_connection(run, fivetran):
    fivetran.faults.append(after(lambda: time.sleep(11), answer(403)))
    result = run()
    assert (result.code, result.waits) == (200, [])


# Without a proxy -------------------------------------------------------------------------


def loopback_address(port, kind=socket.SOCK_STREAM):
    """Return an address of this machine where nobody else uses the port."""
    low, middle, high = random.choices(range(2, 250), k=3)
    address = f"127.{high}.{middle}.{low}"
    with socket.socket(socket.AF_INET, kind) as trial:
        try:
            trial.bind((address, port))
        except OSError as error:
            pytest.skip(f"port {port} is taken on this machine: {error}")
    return address


@pytest.fixture
def resolver(system_file):
    """Let names be looked up in what the test replaces, and nowhere else."""
    system_file("/etc/nsswitch.conf", "hosts: files dns\n")
    return system_file


@needs_mounts
def test_the_timeout_ends_a_name_look_up_without_an_answer(run, resolver):
    address = loopback_address(53, socket.SOCK_DGRAM)
    servers = f"nameserver {address}\noptions timeout:30 attempts:5\n"
    resolver("/etc/resolv.conf", servers)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.settimeout(PATIENCE)
        silent.bind((address, 53))
        result = run("--timeout=2", HTTPS_PROXY=None)
        assert b"\x03api\x08fivetran\x03com" in silent.recv(512)
    assert (result.code, result.truth) == (249, NOT_STARTED)
    assert ": no connection to api.fivetran.com: not within 2 s. " in result.last


@needs_mounts
def test_an_address_that_does_not_answer_costs_ten_seconds(run, fivetran, resolver):
    # The order in which addresses are tried is that of getaddrinfo: nearest first.
    dead, alive = f"127.0.{random.randint(1, 250)}.1", loopback_address(443)
    resolver("/etc/hosts", f"{dead} api.fivetran.com\n{alive} api.fivetran.com\n")
    with fivetran.listen_directly(alive, 443), socket.socket() as full:
        full.bind((dead, 443))
        full.listen(0)
        clients = [socket.socket() for _ in range(2)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((dead, 443))
        before = time.monotonic()
        result = run(HTTPS_PROXY=None)
        assert time.monotonic() - before >= 10
    assert (result.code, result.waits) == (0, [])


@needs_mounts
@pytest.mark.parametrize(
    ("variable", "value"), [("HTTPS_PROXY", ""), ("NO_PROXY", "fivetran.com")]
)
def test_without_a_proxy_the_way_is_direct(run, fivetran, resolver, variable, value):
    address = loopback_address(443)
    resolver("/etc/hosts", f"{address} api.fivetran.com\n")
    with fivetran.listen_directly(address, 443):
        assert run(**{variable: value}).code == 0
    assert fivetran.tunnels == []


# Trying again ----------------------------------------------------------------------------


def test_three_more_tries_with_growing_waits_and_no_more(run, fivetran):
    fivetran.faults.extend([answer(502)] * 9)
    result = run()
    assert (result.code, result.truth) == (249, MAYBE)
    assert len(fivetran.requests) == 4
    assert len(result.waits) == 3
    for wait, nominal in zip(result.waits, (1, 2, 4)):
        assert 0.7 * nominal <= wait <= 1.3 * nominal
    assert result.response["code"] == "Refusal"


def test_runs_that_fail_together_do_not_come_back_together(run, fivetran):
    fivetran.faults.extend([answer(502)] * 10)
    waits = [run.until_first_wait(signal.SIGTERM).waits[0] for _ in range(10)]
    assert len(set(waits)) > 1  # of 5 that there can be


def test_a_wait_is_announced_and_kept(run, fivetran):
    fivetran.faults.append(answer(429, {"Retry-After": "3"}))
    result = run()
    assert (result.truth, result.waits) == (STARTED, [3])
    first, second = fivetran.requests
    assert second.at - first.at >= 3


@pytest.mark.parametrize("value", ["120", "9" * 5_000])
def test_a_retry_after_that_does_not_fit_ends_the_run(run, fivetran, value):
    fivetran.faults.append(answer(429, {"Retry-After": value}))
    result = run()
    assert (result.code, result.truth, result.waits) == (249, NOT_STARTED, [])
    assert "; too little time is left to wait " in result.last
    assert result.response["code"] == "Refusal"


def test_the_sync_that_was_forced_last_is_the_one_in_the_record(run, fivetran):
    connection = fivetran.connections[CONNECTOR_ID]
    fivetran.faults.append(after(connection.start, send(b"")))
    _, execution_time = run().record
    lost, started = connection.syncs
    assert lost < started < execution_time
