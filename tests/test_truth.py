"""Every run ends with the right exit code, and says the truth about the sync.

Runner.check_truth compares what each of these runs says with what the local Fivetran said.
"""

import gzip
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from conftest import (
    CONNECTOR_ID,
    MAYBE,
    NOT_STARTED,
    PATIENCE,
    STARTED,
    UNKNOWN_ID,
    execute,
    needs_mounts,
)
from fake_fivetran import FakeFivetran, Fault
from faults import CHUNKED, OK, SUCCESS, answer, close, page, reset, send

import fivetran_execute_sync as script

GZIP = OK + b"Content-Encoding: gzip\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# An answer over the wire, and how the run ends; more answers are in test_answers.py.
ANSWERS = {
    "success": (answer(200), 0, STARTED),
    "in chunks": (send(CHUNKED + b"2c\r\n%b\r\n0\r\n\r\n" % SUCCESS, 200), 0, STARTED),
    "compressed": (send(GZIP + gzip.compress(SUCCESS), 200), 0, STARTED),
    "interim answer": (send(CONTINUE + OK + b"\r\n" + SUCCESS, 200), 0, STARTED),
    "wrong key": (answer(401), 200, NOT_STARTED),
    "filter that forwards": (page(403), 249, MAYBE),
    "redirect": (page(307, SUCCESS, {"Location": "/elsewhere"}), 249, MAYBE),
    "too large": (page(200, SUCCESS.ljust(65_537)), 249, MAYBE),
}
STORED = {STARTED: "Success", NOT_STARTED: "Refusal", MAYBE: "InvalidResponse"}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_decides(run, fivetran, name):
    fault, code, truth = ANSWERS[name]
    fivetran.faults.append(fault)
    result = run()
    assert (result.code, result.truth) == (code, truth)
    assert result.response["code"] == STORED[truth]
    assert bool(result.record) == (truth != NOT_STARTED)
    assert len(fivetran.requests) == len(fivetran.tunnels) == 1


def test_what_is_sent_forces_a_sync(run, fivetran):
    fivetran.connections[CONNECTOR_ID].start()
    assert run().code == 0
    (request,) = fivetran.requests
    assert request.path == f"/v1/connections/{CONNECTOR_ID}/sync"
    assert request.body == b'{"force": true}'
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 2


# What breaks before the request is complete: nothing can have been started.
UNSENT = {
    "proxy closes": close("connect"),
    "proxy refuses": send(b"HTTP/1.1 407 No\r\n\r\n", stage="connect"),
    "proxy speaks another protocol": send(b"SSH-2.0-OpenSSH_9\r\n", stage="connect"),
    "reset in the handshake": reset("handshake"),
    "TLS alert": send(b"\x15\x03\x03\x00\x02\x02\x28", stage="handshake"),
}
# What breaks afterwards: something may have been.
SENT = {
    "closed without an answer": close("answer"),
    "reset without an answer": reset("answer"),
    "another protocol": send(b"SSH-2.0-OpenSSH_9\r\n"),
    "headers without end": send(OK + b"X: y\r\n" * 1_000),
    "negative size of a chunk": send(CHUNKED + b"-5\r\n{}\r\n"),
    "cut in a chunk": send(CHUNKED + b"ff\r\n" + SUCCESS),
    "what requests cannot read": page(307, headers={"Location": "https://["}),
    "500": answer(500),
    "520 of a gateway": page(520),
}


@pytest.mark.parametrize("name", [*UNSENT, *SENT])
def test_a_refusal_of_a_later_try_says_nothing_about_the_first(run, fivetran, name):
    fivetran.faults.append({**UNSENT, **SENT}[name])
    result = run(FIVETRAN_CONNECTOR_ID=UNKNOWN_ID)
    assert (result.code, len(result.waits)) == (204, 1)
    assert result.truth == (MAYBE if name in SENT else NOT_STARTED)
    assert len(fivetran.requests) == (2 if name in SENT else 1)
    assert result.response["code"] == "NotFound_Connection"


def test_a_later_try_that_is_accepted_has_started_the_sync(run, fivetran):
    fivetran.faults.extend([close("answer"), close("connect")])
    assert (run().truth, len(fivetran.requests)) == (STARTED, 2)


def test_a_later_try_that_cannot_connect_says_nothing_about_the_first(run, fivetran):
    fivetran.faults.extend([close("answer"), *[close("connect")] * 3])
    result = run("--timeout=5")
    assert (result.code, result.truth) == (249, MAYBE)
    assert "no connection to api.fivetran.com, through the proxy in" in result.last
    assert result.response["code"] == "NoResponse"


def test_whatever_requests_raises_after_the_body_went_out_leaves_it_open():
    outcome = script.broken(AttributeError("no such header"), sent=True)
    assert (outcome.exit_code, outcome.retry, outcome.refused) == (249, True, False)
    assert outcome.reason == "no complete answer from api.fivetran.com: AttributeError"


# Where nobody can be reached ------------------------------------------------------------

# Settings that no other try can mend, and what is told of them.
WRONG_PROXIES = {
    "http://user:pa55@": "TypeError",
    "http://user:pa55/word@127.0.0.1:1": "Error",
    "http://user:pa55@a..b": "Error",
    "http://us%E2%82%AC:pa55@127.0.0.1:1": "UnicodeEncodeError",
    "socks5://user:pa55@127.0.0.1": "Missing dependencies for SOCKS support",
    "gopher://user:pa55@127.0.0.1": "ProxySchemeUnknown",
    "http:///user:pa55@127.0.0.1": "Please check proxy URL. It is malformed",
}


@pytest.mark.parametrize("proxy", WRONG_PROXIES)
def test_a_proxy_that_is_no_url_is_a_wrong_setting(run, proxy):
    result = run(HTTPS_PROXY=proxy)
    assert (result.code, result.truth, result.waits) == (1, NOT_STARTED, [])
    assert ", through the proxy in HTTPS_PROXY or ALL_PROXY: " in result.last
    assert WRONG_PROXIES[proxy] in result.last
    assert "Check HTTPS_PROXY, ALL_PROXY and REQUESTS_CA_BUNDLE." in result.last


def test_a_ca_bundle_that_is_not_there_is_a_wrong_setting(run):
    result = run(REQUESTS_CA_BUNDLE="/missing.pem")
    assert (result.code, result.truth, result.waits) == (1, NOT_STARTED, [])
    assert "invalid path: /missing.pem. " in result.last


@pytest.mark.parametrize("host", ["api.fivetran.com", "fivetran.example"])
def test_a_certificate_that_is_not_trusted_is_a_wrong_setting(run, fivetran, host):
    """Of an unknown authority, or of a known one and for another host."""
    with FakeFivetran(certified_host=host) as other:
        trusted = fivetran if host == "api.fivetran.com" else other
        bundle = trusted.ca_bundle
        result = run(HTTPS_PROXY=other.proxy_url, REQUESTS_CA_BUNDLE=bundle)
        assert not other.requests
    assert (result.code, result.truth, result.waits) == (1, NOT_STARTED, [])
    assert "Check REQUESTS_CA_BUNDLE and the clock of this machine." in result.last


def test_a_proxy_that_does_not_answer_is_the_network(run):
    with socket.socket() as taken:  # so that nobody else listens there
        taken.bind(("127.0.0.1", 0))
        proxy = f"http://user:pa55@127.0.0.1:{taken.getsockname()[1]}"
        result = run("--timeout=2", HTTPS_PROXY=proxy)
    assert (result.code, result.truth) == (249, NOT_STARTED)
    assert "Connection refused" in result.last
    assert "Check the network, and HTTPS_PROXY if it needs a proxy." in result.last


@needs_mounts
@pytest.mark.parametrize("form", ['"{}"', "'{}'", "https_proxy={}", "http//u:pa55@h"])
def test_a_misspelt_proxy_is_taken_for_a_host_and_not_shown(run, system_file, form):
    system_file("/etc/nsswitch.conf", "hosts: files\n")  # no name server is asked
    result = run("--timeout=1", HTTPS_PROXY=form.format("http://user:pa55@h"))
    assert (result.code, result.truth) == (249, NOT_STARTED)


def test_the_words_of_others_do_not_show_the_password_of_a_proxy():
    for sent in (False, True):
        error = OSError("cannot reach http://user:p@ss wo//rd@proxy:3128")
        assert "//***@proxy:3128" in script.broken(error, sent).reason
        error = ValueError("no number: pa55")
        assert script.broken(error, sent).reason.endswith(": ValueError")


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
def test_ctrl_c_and_sigterm_end_a_try(run, number, stage, code, truth):
    process = run.until_stage(stage)
    while process.poll() is None:  # more than once, for want of patience
        process.send_signal(number)
        time.sleep(0.001)
    result = run.finish(process)
    assert (result.code, result.truth) == (code, truth)
    ended = f"ended by {number.name}"
    assert result.response == {"code": "NoResponse", "message": ended}
    assert f": {ended}. " in result.last


def test_sigterm_ends_a_wait(run, fivetran):
    fivetran.faults.append(page(503, headers={"Retry-After": "50"}))
    result = run.until_first_wait(signal.SIGTERM)
    assert (result.code, result.truth) == (143, MAYBE)


def test_signals_that_the_parent_ignores_stay_ignored(run, fivetran):
    """As those of `script &` in a shell without job control."""
    reached, go_on = threading.Event(), threading.Event()
    act = lambda sock: (reached.set(), go_on.wait(PATIENCE))
    fivetran.faults.append(Fault("connect", act))
    run.command = ["sh", "-c", 'trap "" INT TERM; exec "$@"', "sh", *run.command]
    process = run.start()
    assert reached.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    go_on.set()
    assert run.finish(process).code == 0


@pytest.mark.parametrize("delay", [0, 10, 20, 30])
def test_a_run_ended_at_any_moment_tells_the_truth(run, delay):
    """Milliseconds after the first line; the run may have come to its end by itself."""
    process = run.start()
    said = run.read_line(process)
    time.sleep(delay / 1000)
    process.send_signal(signal.SIGTERM)
    result = run.finish(process, said)
    assert result.code in (0, 143)
    assert result.response["code"] in ("Success", "NoResponse")


def test_nothing_is_sent_that_was_said_not_to_be():
    sync = script.Sync()
    assert list(sync) == [script.FORCE]
    sync.over, sync.truth = True, NOT_STARTED
    body = iter(sync)
    assert sync.truth == NOT_STARTED  # if the main thread reads it now, nothing is sent
    with pytest.raises(OSError, match="over"):
        next(body)
    assert sync.truth == MAYBE  # it was set first, so that no later look is too early


@needs_mounts
def test_sigterm_is_answered_by_the_first_process_of_a_container(run):
    run.command = ["unshare", "--pid", "--fork", *run.command]
    process = run.until_stage("answer")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    execute(["kill", *children.split()])
    result = run.finish(process)
    assert (result.code, result.truth) == (143, MAYBE)


def test_a_run_that_is_killed_leaves_no_response_of_an_earlier_one(run):
    before = run().record
    process = run.until_stage("answer")
    process.kill()
    process.communicate()
    killed = run.ended(process.returncode)
    message = "no answer has come yet"
    assert killed.response == {"code": "NoResponse", "message": message}
    assert killed.record == before
