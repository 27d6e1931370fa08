"""Every run ends with the right exit code, and says the truth about the sync.

Runner.check_truth compares what each of these runs says with what the local Fivetran said.
"""

from __future__ import annotations

import gzip
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

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
    in_own_mounts,
    needs_mounts,
)
from fake_fivetran import FakeFivetran, Fault
from faults import (
    CHUNKED,
    OK,
    SUCCESS,
    answer,
    close,
    page,
    reset,
    send,
    stall,
)

import fivetran_execute_sync as script

if TYPE_CHECKING:
    from collections.abc import Iterator

SUCCEEDED = SUCCESS.encode()
# One answer over the wire: how the run ends, and what it says.
# What an answer means is tested in test_answers.py.
ANSWERS = {
    "success": (answer(200), 0, STARTED),
    "in chunks": (
        send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SUCCEEDED), SUCCEEDED), 200),
        0,
        STARTED,
    ),
    "compressed": (
        send(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(SUCCEEDED), 200),
        0,
        STARTED,
    ),
    "after an interim answer": (
        send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n" + SUCCEEDED, 200),
        0,
        STARTED,
    ),
    "wrong key": (answer(401), 200, NOT_STARTED),
    "filter that forwards": (page(403), 249, MAYBE),
    "redirect": (page(307, SUCCESS, {"Location": "/elsewhere"}), 249, MAYBE),
    "too large": (page(200, SUCCESS.ljust(65_537)), 249, MAYBE),
}
STORED = {STARTED: "Success", NOT_STARTED: "Refusal", MAYBE: "InvalidResponse"}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_decides(run: Runner, fivetran: FakeFivetran, name: str) -> None:
    fault, code, truth = ANSWERS[name]
    fivetran.faults.append(fault)
    result = run()
    assert (result.code, result.truth) == (code, truth)
    assert result.response["code"] == STORED[truth]
    assert bool(result.record) == (truth != NOT_STARTED)
    assert len(fivetran.requests) == len(fivetran.tunnels) == 1


def test_what_is_sent_forces_a_sync(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.connections[CONNECTOR_ID].start()
    assert run().code == 0
    (request,) = fivetran.requests
    assert request.path == f"/v1/connections/{CONNECTOR_ID}/sync"
    assert request.body == b'{"force": true}'
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 2


# What breaks before the request is complete: nothing can have been started.
UNSENT = {
    "proxy closes": close("connect"),
    "proxy refuses": send(
        b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", stage="connect"
    ),
    "proxy speaks another protocol": send(b"SSH-2.0-OpenSSH_9.2\r\n", stage="connect"),
    "reset in the handshake": reset("handshake"),
    "TLS alert": send(b"\x15\x03\x03\x00\x02\x02\x28", stage="handshake"),
}
# What breaks afterwards: something may have been.
SENT = {
    "closed without an answer": close("answer"),
    "reset without an answer": reset("answer"),
    "another protocol": send(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "headers without end": send(OK + b"X: y\r\n" * 1_000),
    "negative size of a chunk": send(CHUNKED + b"-5\r\n{}\r\n"),
    "cut in a chunk": send(CHUNKED + b"ff\r\n" + SUCCESS.encode()),
    "what requests cannot read": page(307, "", {"Location": "https://["}),
    "500": answer(500),
    "520 of a gateway": page(520),
}


@pytest.mark.parametrize("name", [*UNSENT, *SENT])
def test_a_refusal_of_a_later_try_says_nothing_about_the_first(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append({**UNSENT, **SENT}[name])
    result = run(FIVETRAN_CONNECTOR_ID=UNKNOWN_ID)
    if name == "what requests cannot read" and not result.waits:
        pytest.skip("this version of requests can read it")
    assert result.code == 204
    assert result.truth == (MAYBE if name in SENT else NOT_STARTED)
    assert len(result.waits) == 1
    assert len(fivetran.requests) == (2 if name in SENT else 1)
    assert result.response["code"] == "NotFound_Connection"


def test_a_later_try_that_is_accepted_has_started_the_sync(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([close("answer"), close("connect"), page(502)])
    assert (run().truth, len(fivetran.requests)) == (STARTED, 3)


def test_a_later_try_that_cannot_connect_says_nothing_about_the_first(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.extend([close("answer"), *[close("connect")] * 3])
    result = run()
    assert (result.code, result.truth) == (249, MAYBE)
    assert "no connection to api.fivetran.com, through the proxy in" in result.last
    assert result.response["code"] == "NoResponse"


# Where nobody can be reached ------------------------------------------------------------


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else listens there either."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


# A proxy that no other try can mend, and what is told of it.
WRONG_PROXIES = [
    ("http://user:pa55@", "TypeError"),
    ("http://user:pa55/word@127.0.0.1:{port}", "Error"),
    ("http://user:pa55\u2100word@127.0.0.1:{port}", "Error"),
    ("http://user:pa55@a..b", "Unicode"),
    ("http://us%E2%82%AC:pa55@127.0.0.1:{port}", "UnicodeEncodeError"),
    ("socks5://user:pa55@127.0.0.1", "Missing dependencies for SOCKS support"),
    ("gopher://user:pa55@127.0.0.1", "ProxySchemeUnknown"),
    ("http:///user:pa55@127.0.0.1", "Please check proxy URL. It is malformed"),
]


@pytest.mark.parametrize(("proxy", "told"), WRONG_PROXIES)
def test_a_proxy_that_is_no_url_is_a_wrong_setting(
    run: Runner, closed_port: int, proxy: str, told: str
) -> None:
    result = run(HTTPS_PROXY=proxy.format(port=closed_port))
    assert (result.code, result.truth, result.waits) == (1, NOT_STARTED, [])
    assert ", through the proxy in HTTPS_PROXY or ALL_PROXY: " in result.last
    assert told in result.last
    assert "Check HTTPS_PROXY, ALL_PROXY and REQUESTS_CA_BUNDLE." in result.last


def test_a_ca_bundle_that_is_not_there_is_a_wrong_setting(run: Runner) -> None:
    result = run(REQUESTS_CA_BUNDLE="/missing.pem")
    assert (result.code, result.truth, result.waits) == (1, NOT_STARTED, [])
    assert "invalid path: /missing.pem. " in result.last
    assert "REQUESTS_CA_BUNDLE" in result.last


@pytest.mark.parametrize("name", ["api.fivetran.com", "fivetran.example"])
def test_a_certificate_that_is_not_trusted_is_a_wrong_setting(
    run: Runner, name: str
) -> None:
    """Of an unknown authority, or of a known one and for another host."""
    with FakeFivetran(certified_host=name) as other:
        bundle = other.ca_bundle if name != "api.fivetran.com" else None
        trusted = {"REQUESTS_CA_BUNDLE": bundle} if bundle else {}
        result = run(HTTPS_PROXY=other.proxy_url, **trusted)
        assert not other.requests
    assert (result.code, result.truth, result.waits) == (1, NOT_STARTED, [])
    assert "Check REQUESTS_CA_BUNDLE and the clock of this machine." in result.last


def test_a_proxy_that_does_not_answer_is_the_network(
    run: Runner, closed_port: int
) -> None:
    proxy = f"http://user:pa55@127.0.0.1:{closed_port}"
    result = run("--timeout=2", HTTPS_PROXY=proxy)
    assert (result.code, result.truth) == (249, NOT_STARTED)
    assert "Connection refused" in result.last
    assert "Check the network, and HTTPS_PROXY if it needs a proxy." in result.last
    assert result.response["code"] == "NoResponse"


@needs_mounts
@pytest.mark.parametrize(
    "proxy",
    [
        '"http://u:pa55@h"',
        "'http://u:pa55@h'",
        "http//u:pa55@h",
        "https_proxy=http://u:pa55@h",
    ],
)
def test_the_password_in_a_misspelt_proxy_is_not_shown(run: Runner, proxy: str) -> None:
    """Which requests takes for the name of a host; it is looked up in files only."""
    files = run.folder.parent / "nsswitch.conf"
    files.write_text("hosts: files\n")
    mount = f'mount --bind {files} /etc/nsswitch.conf && exec "$@"'
    run.command = in_own_mounts(mount, run.command)
    assert run("--timeout=1", HTTPS_PROXY=proxy).code == 249


def test_words_of_others_do_not_show_the_password_of_a_proxy() -> None:
    for sent in (False, True):
        error = OSError("cannot reach http://user:p@ss wo//rd@proxy:3128")
        assert "//***@proxy:3128" in script.broken(error, sent).reason


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
    reached = threading.Event()
    fivetran.faults.append(stall(stage, then=reached.set))
    process = run.start()
    assert reached.wait(PATIENCE)
    for _ in range(20):  # in a hurry
        process.send_signal(number)
    result = run.finish(process)
    assert (result.code, result.truth) == (code, truth)
    ended = f"ended by {number.name}"
    assert result.response == {"code": "NoResponse", "message": ended}
    assert f": {ended}. " in result.last


def test_sigterm_ends_a_wait(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(page(503, headers={"Retry-After": "50"}))
    result = run.until_first_wait(signal.SIGTERM)
    assert (result.code, result.truth) == (143, MAYBE)


def test_signals_that_the_parent_ignores_stay_ignored(
    run: Runner, fivetran: FakeFivetran
) -> None:
    """As those of `script &` in a shell without job control."""
    reached, go_on = threading.Event(), threading.Event()
    fivetran.faults.append(
        Fault("connect", lambda sock: (reached.set(), go_on.wait(PATIENCE)))
    )
    run.command = ["sh", "-c", 'trap "" INT TERM; exec "$@"', "sh", *run.command]
    process = run.start()
    assert reached.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    go_on.set()
    assert run.finish(process).code == 0


@pytest.mark.parametrize("delay", [0, 10, 20, 30])
def test_a_run_ended_at_any_moment_tells_the_truth_and_leaves_whole_artifacts(
    run: Runner, delay: int
) -> None:
    """Milliseconds after the first line; the run may have come to its end by itself."""
    process, said = run.until_line("forcing a sync")
    time.sleep(delay / 1000)
    process.send_signal(signal.SIGTERM)
    result = run.finish(process, said)
    assert result.code in (0, 143)
    assert result.response["code"] in ("Success", "NoResponse")


def test_nothing_is_sent_that_was_said_not_to_be() -> None:
    sync = script.Sync()
    assert list(sync) == [script.FORCE]
    sync.over = True
    sync.truth = NOT_STARTED
    body = iter(sync)
    assert sync.truth == NOT_STARTED  # what the main thread may read
    with pytest.raises(OSError, match="over"):
        next(body)
    assert sync.truth == MAYBE  # what it may read, too: before the look at `over`


@needs_mounts
def test_sigterm_is_answered_by_the_first_process_of_a_container(
    run: Runner, fivetran: FakeFivetran
) -> None:
    reached = threading.Event()
    fivetran.faults.append(stall("answer", then=reached.set))
    run.command = ["unshare", "--pid", "--fork", *run.command]
    process = run.start()
    assert reached.wait(PATIENCE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    execute(["kill", *children.split()])
    result = run.finish(process)
    assert (result.code, result.truth) == (143, MAYBE)


def test_a_run_that_is_killed_leaves_no_response_of_an_earlier_one(
    run: Runner, fivetran: FakeFivetran
) -> None:
    before = run().record
    reached = threading.Event()
    fivetran.faults.append(stall("answer", then=reached.set))
    process = run.start()
    assert reached.wait(PATIENCE)
    process.kill()
    process.communicate()
    killed = Run(process.returncode, "", "", run.folder)
    message = "no answer has come yet"
    assert killed.response == {"code": "NoResponse", "message": message}
    assert killed.record == before
