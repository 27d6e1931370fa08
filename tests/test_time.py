"""A run never takes longer than its --timeout, and tries again where that may help."""

import os
import random
import signal
import socket
import time
from contextlib import suppress

import harness
import pytest
from faults import CHUNKED, OK, answer, close, page, pour, stall
from harness import MAYBE_STARTED, NOT_STARTED, needs_mounts

ENDLESS = {
    "proxy": stall("connect"),
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


@pytest.mark.parametrize("stage", ["answer", "handshake"])
def test_the_timeout_counts_for_all_tries_and_waits(script, fivetran, stage):
    fivetran.faults.extend([page(503, headers={"Retry-After": "3"}), stall(stage)])
    run = script.run("--timeout=10")
    assert time.monotonic() - fivetran.requests[0].at < 3 + 10
    missing = "No connection to" if stage == "handshake" else "No complete answer from"
    assert f" {missing} api.fivetran.com, through the proxy in " in run.verdict
    assert "ALL_PROXY: timed out after 10 s. " in run.verdict
    assert (run.code, run.sync, run.waits) == (249, MAYBE_STARTED, [3])


def test_an_address_that_does_not_answer_costs_ten_seconds(script):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        clients = [socket.socket() for _ in range(2)]
        for client in clients:  # as many as wait for nobody to accept them
            client.setblocking(False)
            client.connect_ex(address)
        before = time.monotonic()
        run = script.run("--timeout=13", HTTPS_PROXY=f"http://127.0.0.1:{address[1]}")
        assert time.monotonic() - before >= 10
        for client in clients:
            client.close()
    assert (run.code, run.waits) == (249, [])
    assert "; too little time is left to try again in " in run.verdict


@pytest.mark.parametrize(("slow", "seconds"), [("connect", 6), ("answer", 11)])
def test_a_slow_proxy_and_a_slow_answer_are_no_fault(script, fivetran, slow, seconds):
    fivetran.misbehave = lambda stage, *_: time.sleep(seconds * (stage == slow))
    run = script.run()
    assert (run.code, run.waits) == (0, [])


def test_all_proxy_is_used(script, fivetran):
    assert script.run(HTTPS_PROXY=None, ALL_PROXY=fivetran.proxy_url).code == 0
    assert len(fivetran.tunnels) == 1


@needs_mounts
@pytest.mark.parametrize("changed", [{"HTTPS_PROXY": ""}, {"NO_PROXY": "fivetran.com"}])
def test_without_a_proxy_the_way_is_direct(script, fivetran, name_lookup, changed):
    address = "127." + ".".join(str(random.randint(2, 250)) for _ in range(3))
    name_lookup(f"{address} api.fivetran.com\n")
    try:
        server = fivetran.listen_directly(address, 443)
    except OSError as error:
        pytest.skip(f"port 443 is taken on this machine: {error}")
    with server:
        script.run(**{"HTTPS_PROXY": fivetran.proxy_url, **changed})
    assert len(fivetran.requests) == 1
    assert fivetran.tunnels == []


def test_three_more_tries_after_waits_that_grow_and_vary(script, fivetran):
    """That the last cannot connect says nothing about the others."""
    fivetran.faults.extend([*[answer(502)] * 3, close("connect")])
    run = script.run()
    assert (run.code, run.sync, len(run.waits)) == (249, MAYBE_STARTED, 3)
    assert " No connection to api.fivetran.com, through the proxy in" in run.verdict
    assert run.response["code"] == "NoResponse"
    first, second, third = (request.at for request in fivetran.requests)
    assert second - first >= run.waits[0] - 0.05  # shown in tenths of a second
    assert third - second >= run.waits[1] - 0.05
    for wait, usual in zip(run.waits, (1, 2, 4)):
        assert 0.75 * usual - 0.05 <= wait <= 1.25 * usual + 0.05
    assert run.waits != [1, 2, 4]  # which is one in a thousand


@pytest.mark.parametrize("value", ["118", "9" * 5_000])
def test_a_retry_after_too_long_for_the_time_ends_the_run(script, fivetran, value):
    fivetran.faults.append(answer(429, {"Retry-After": value}))
    run = script.run()
    assert (run.code, run.sync, run.waits) == (249, NOT_STARTED, [])
    assert " HTTP 429, " in run.verdict
    assert "; too little time is left to try again in " in run.verdict
    assert " inf " not in run.verdict
    assert run.response["code"] == "Refusal"
