"""A run never takes longer than its --timeout, and tries again where that may help."""

import os
import random
import signal
import socket
import time
from contextlib import suppress

import harness
import pytest
from faults import CHUNKED, OK, answer, page, pour, stall
from harness import MAYBE_STARTED, NOT_STARTED, PATIENCE, STARTED, needs_mounts

# What would never end by itself. How far a run gets in its time is for the machine to say.
ENDLESS = {
    "proxy": stall("connect"),
    "handshake": stall("handshake"),
    "answer": stall("answer"),
    "a header that trickles in": pour(OK + b"X: ", b"x", 0.05),
    "chunks that trickle in": pour(CHUNKED, b"1\r\n \r\n", 0.05),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_timeout_ends_what_has_no_end(script, fivetran, name):
    fivetran.faults.append(ENDLESS[name])
    run = script.run("--timeout=1.5")
    fivetran.faults.clear()  # on a busy machine, the run may not have come that far
    assert run.code == 249
    assert ": timed out after 1.5 s. " in run.verdict
    assert run.response["code"] == "NoResponse"


def test_the_timeout_and_ctrl_c_end_what_no_signal_interrupts(script, tmp_path):
    """A file whose opening waits, in C, for somebody who writes into it."""
    path = tmp_path / "ca.pem"
    os.mkfifo(path)
    run = script.run("--timeout=1", REQUESTS_CA_BUNDLE=str(path))
    assert (run.code, run.sync) == (249, NOT_STARTED)
    process = script.start(REQUESTS_CA_BUNDLE=str(path))
    writers = []

    def has_been_opened():
        with suppress(OSError):  # until somebody waits for a writer
            writers.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return writers

    harness.wait_until(has_been_opened)
    process.send_signal(signal.SIGINT)
    run = script.finish(process)
    os.close(*writers)
    assert (run.code, run.sync) == (130, NOT_STARTED)


@pytest.mark.parametrize(
    ("stage", "missing"),
    [("answer", "No complete answer from"), ("handshake", "No connection to")],
)
def test_the_timeout_counts_for_all_tries_and_waits(script, fivetran, stage, missing):
    fivetran.faults.extend([page(503, headers={"Retry-After": "8"}), stall(stage)])
    run = script.run("--timeout=15")
    assert time.monotonic() - fivetran.requests[0].at < 8 + 15
    through = "api.fivetran.com, through the proxy in HTTPS_PROXY or ALL_PROXY"
    assert f" {missing} {through}: timed out after 15 s. " in run.verdict
    assert (run.code, run.sync, run.waits) == (249, MAYBE_STARTED, [8])


@pytest.mark.parametrize(("slow", "seconds"), [("connect", 6), ("answer", 11)])
def test_a_proxy_may_take_six_seconds_and_an_answer_eleven(
    script, fivetran, slow, seconds
):
    fivetran.misbehave = lambda stage, *_: time.sleep(seconds * (stage == slow))
    run = script.run()
    assert (run.code, run.waits) == (0, [])


# Without a proxy, or with another --------------------------------------------------------


def test_all_proxy_is_used(script, fivetran):
    assert script.run(HTTPS_PROXY=None, ALL_PROXY=fivetran.proxy_url).code == 0
    assert len(fivetran.tunnels) == 1


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


@needs_mounts
def test_the_timeout_ends_a_name_lookup_without_an_answer(script, name_lookup):
    address = loopback_address(53, socket.SOCK_DGRAM)
    servers = f"nameserver {address}\noptions timeout:30 attempts:5\n"
    name_lookup(resolv_conf=servers)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.settimeout(PATIENCE)
        silent.bind((address, 53))
        run = script.run("--timeout=2", HTTPS_PROXY=None)
        assert b"\x03api\x08fivetran\x03com" in silent.recv(512)
    assert (run.code, run.sync) == (249, NOT_STARTED)
    assert " No connection to api.fivetran.com: timed out after 2 s. " in run.verdict


@needs_mounts
def test_an_address_that_does_not_answer_costs_ten_seconds(
    script, fivetran, name_lookup
):
    # The order in which addresses are tried is that of getaddrinfo: nearest first.
    dead, alive = f"127.0.{random.randint(1, 250)}.1", loopback_address(443)
    name_lookup(f"{dead} api.fivetran.com\n{alive} api.fivetran.com\n")
    with fivetran.listen_directly(alive, 443), socket.socket() as full:
        full.bind((dead, 443))
        full.listen(0)
        clients = [socket.socket() for _ in range(2)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((dead, 443))
        before = time.monotonic()
        run = script.run("--timeout=19", HTTPS_PROXY=None)
        assert time.monotonic() - before >= 10
        for client in clients:
            client.close()
    assert (run.code, run.waits) == (0, [])


@needs_mounts
@pytest.mark.parametrize("changed", [{"HTTPS_PROXY": ""}, {"NO_PROXY": "fivetran.com"}])
def test_without_a_proxy_the_way_is_direct(script, fivetran, name_lookup, changed):
    address = loopback_address(443)
    name_lookup(f"{address} api.fivetran.com\n")
    with fivetran.listen_directly(address, 443):
        script.run(**{"HTTPS_PROXY": fivetran.proxy_url, **changed})
    assert len(fivetran.requests) == 1
    assert fivetran.tunnels == []


# Trying again ----------------------------------------------------------------------------


def test_three_more_tries_with_growing_waits_that_differ_from_run_to_run(
    script, fivetran
):
    fivetran.faults.extend([answer(502)] * 12)
    runs = [script.finish(each) for each in [script.start() for _ in range(3)]]
    for run in runs:
        assert (run.code, run.sync) == (249, MAYBE_STARTED)
        assert len(run.waits) == 3
        for wait, usual in zip(run.waits, (1, 2, 4)):
            assert 0.75 * usual - 0.05 <= wait <= 1.25 * usual + 0.05
    assert len({tuple(run.waits) for run in runs}) > 1  # of 1,386 that there can be


def test_a_wait_is_announced_and_kept(script, fivetran):
    fivetran.faults.append(answer(429, {"Retry-After": "3"}))
    run = script.run()
    assert (run.sync, run.waits) == (STARTED, [3])
    first, second = fivetran.requests
    assert second.at - first.at >= 3


@pytest.mark.parametrize("value", ["118", "9" * 5_000])
def test_a_retry_after_that_leaves_too_little_time_ends_the_run(
    script, fivetran, value
):
    fivetran.faults.append(answer(429, {"Retry-After": value}))
    run = script.run()
    assert (run.code, run.sync, run.waits) == (249, NOT_STARTED, [])
    assert " HTTP 429, " in run.verdict
    assert "; too little time is left to wait " in run.verdict
    assert " inf " not in run.verdict
    assert run.response["code"] == "Refusal"
