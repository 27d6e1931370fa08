"""Every run ends with the right exit code, and says the truth about the sync.

check_truth() compares what each run says with what the local Fivetran has done.
"""

import gzip
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import harness
import pytest
from fake_fivetran import FakeFivetran, Fault
from faults import CHUNKED, OK, SUCCESS, after, answer, close, page, reset, send, stall
from harness import CONNECTOR_ID, MAYBE_STARTED, NOT_STARTED, PATIENCE, STARTED

from fivetran_execute_sync import BODY, RequestBody

GZIP = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(SUCCESS)
DEEP = b'{"code": "Success", "message": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
ACCEPTED = {
    "in chunks": send(CHUNKED + b"2c\r\n%b\r\n0\r\n\r\n" % SUCCESS, sync="started"),
    "compressed": send(GZIP, sync="started"),
    "64 KiB": answer(200, body=SUCCESS.ljust(65_536) + b"x"),
}
# What is tried again. Where nothing is said of the sync, nothing has been sent.
UNSENT = {
    "proxy closes": close("connect"),
    "proxy fails": send(b"HTTP/1.1 502 No\r\n\r\n", stage="connect"),
    "proxy speaks another protocol": send(b"SSH-2.0-OpenSSH_9\r\n", stage="connect"),
    "handshake closed": close("handshake"),
    "handshake reset": reset("handshake"),
    "429": answer(429),
}
UNCLEAR = {
    "closed without an answer": close("answer"),
    "reset without an answer": reset("answer"),
    "cut in a chunk": send(CHUNKED + b"ff\r\n" + SUCCESS),
    "what requests cannot read": page(307, headers={"Location": "https://["}),
    "nested too deep": page(200, DEEP),
    "filter that forwards": page(403),
    "not whole in 64 KiB": page(200, SUCCESS.replace(b"on", b"x" * 65_536)),
    "redirect": page(307, SUCCESS, {"Location": "/elsewhere"}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_answer_that_accepts_decides(script, fivetran, name):
    fivetran.faults.append(ACCEPTED[name])
    run = script.run()
    assert (run.sync, run.response["code"], run.waits) == (STARTED, "Success", [])


def test_what_is_sent_forces_a_sync(script, fivetran):
    fivetran.connections[CONNECTOR_ID].start()
    assert script.run().sync == STARTED
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 2
    (request,) = fivetran.requests
    assert request.path == f"/v1/connections/{CONNECTOR_ID}/sync"
    assert request.body == b'{"force": true}'
    assert request.headers["accept"] == "application/json;version=2"
    assert request.headers["content-type"] == "application/json"
    version = "fivetran-execute-sync/1.0.0"
    assert request.headers["user-agent"] == version
    assert harness.execute([*script.command, "--version"]).stdout == f"{version}\n"


@pytest.mark.parametrize("name", [*UNSENT, *UNCLEAR])
def test_a_refusal_of_a_later_try_says_nothing_about_the_first(script, fivetran, name):
    fivetran.faults.append({**UNSENT, **UNCLEAR}[name])
    run = script.run(FIVETRAN_CONNECTOR_ID=harness.UNKNOWN_ID)
    assert (run.code, len(run.waits)) == (204, 1)
    assert run.sync == (MAYBE_STARTED if name in UNCLEAR else NOT_STARTED)
    assert run.response["code"] == "NotFound_Connection"
    assert bool(run.record) == (name in UNCLEAR)


def test_a_later_try_that_is_accepted_has_started_the_sync(script, fivetran):
    connection = fivetran.connections[CONNECTOR_ID]
    forwarded = after(connection.start, close("answer"))
    fivetran.faults.extend([forwarded, close("connect")])
    run = script.run()
    assert run.sync == STARTED
    lost, started = connection.syncs
    assert lost < started < run.record[1]


# Settings, with words of what is said about them.
UNUSABLE = [
    ("HTTPS_PROXY", "http://user:pa55@", "TypeError"),
    ("HTTPS_PROXY", "http://user:pa55@a..b", "Error"),
    ("HTTPS_PROXY", "http://us%E2%82%AC:pa55@h", "UnicodeEncodeError"),
    ("HTTPS_PROXY", "socks5://user:pa55@h", "dependencies for SOCKS support"),
    ("HTTPS_PROXY", "http:///user:pa55@h", "Please check proxy URL."),
    ("HTTPS_PROXY", "https:{}", ""),  # it speaks http
    ("REQUESTS_CA_BUNDLE", "/dev/null", "no certificate or crl found"),
    ("REQUESTS_CA_BUNDLE", __file__, "no certificate or crl found"),
    ("REQUESTS_CA_BUNDLE", "/missing.pem", ": /missing.pem. "),
    ("REQUESTS_CA_BUNDLE", "/proc/self/mem", "Input/output error"),  # even for root
]
REFUSED = {
    "another protocol": ("[SSL: ", send(b"SSH-2.0-OpenSSH_9\r\n", "handshake")),
    "alert": ("[SSL: ", send(b"\x15\x03\x03\x00\x02\x02\x28", "handshake")),
    "407": ("Tunnel connection failed: 407 N", send(b"HTTP/1.1 407 N\n\n", "connect")),
    "403": ("Tunnel connection failed: 403 N", send(b"HTTP/1.1 403 N\n\n", "connect")),
}


def check_local_fault(run, words):
    """Another try cannot mend it, so there is none."""
    assert (run.code, run.sync, run.waits) == (1, NOT_STARTED, [])
    assert " No connection to api.fivetran.com, through the proxy in " in run.verdict
    assert words in run.verdict
    advice = "Check HTTPS_PROXY, ALL_PROXY, REQUESTS_CA_BUNDLE and the clock."
    assert run.verdict.endswith(advice)


@pytest.mark.parametrize(("name", "value", "words"), UNUSABLE)
def test_an_unusable_setting_is_a_local_fault(script, fivetran, name, value, words):
    value = value.replace("{}", fivetran.proxy_url[len("http:") :])
    check_local_fault(script.run(**{name: value}), words)


@pytest.mark.parametrize("name", REFUSED)
def test_what_tls_or_a_proxy_refuses_is_a_local_fault(script, fivetran, name):
    words, fault = REFUSED[name]
    fivetran.faults.append(fault)
    check_local_fault(script.run(), words)


def test_a_certificate_that_is_not_trusted_is_a_local_fault(script):
    """Of an unknown authority, or of a known one and for another host."""
    with FakeFivetran(certified_host="fivetran.example") as other:
        variables = {"REQUESTS_CA_BUNDLE": other.ca_bundle}
        check_local_fault(script.run(**variables), "certificate verify failed")
        variables["HTTPS_PROXY"] = other.proxy_url
        check_local_fault(script.run(**variables), "match")
        assert not other.requests


@harness.needs_mounts
@pytest.mark.parametrize("proxy", ["http://{}127.0.0.1:1", '"http://{}h"', "http//{}h"])
def test_a_missing_or_misspelt_proxy_is_the_network(script, name_lookup, proxy):
    name_lookup()
    run = script.run("--timeout=5.7", HTTPS_PROXY=proxy.format("user:pa55@"))
    assert (run.code, run.sync) == (249, NOT_STARTED)
    assert "; too little time is left to try again in " in run.verdict


@pytest.mark.parametrize("stage", ["connect", "handshake", "answer"])
def test_ctrl_c_and_sigterm_end_a_try(script, stage):
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = script.start_until(stall(stage))
        process.send_signal(number)
        run = script.finish(process)
        assert run.code == code
        assert run.sync == (MAYBE_STARTED if stage == "answer" else NOT_STARTED)
        ended = f"Ended by {number.name}"
        assert run.response == {"code": "NoResponse", "message": ended}
        assert f" {ended}. Run this again if you still want the sync." in run.verdict
        assert bool(run.record) == (stage == "answer")


def test_several_signals_at_once_end_a_run_at_once(script):
    """One thread alone takes them: spread over threads, they may not end any wait."""
    process = script.start_until(stall("answer"))
    both = 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1

    def blocked_by_threads():
        files = Path(f"/proc/{process.pid}/task").glob("*/status")
        masks = [re.search(r"SigBlk:\s*(\w+)", file.read_text())[1] for file in files]
        return sorted(int(mask, 16) & both for mask in masks)

    harness.wait_until(lambda: blocked_by_threads() == [0, both, both])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    assert script.finish(process).sync == MAYBE_STARTED


def test_sigterm_ends_a_wait(script, fivetran):
    for status, sync in ((503, MAYBE_STARTED), (429, NOT_STARTED)):
        fivetran.faults.append(answer(status, {"Retry-After": "50"}))
        process = script.start()
        process.stdout.readline()
        assert b"Trying again in 50.0 s" in process.stdout.readline()
        process.terminate()
        run = script.finish(process)
        assert (run.code, run.sync) == (143, sync)


def test_a_signal_after_the_answer_changes_nothing(script, fivetran):
    """The last line waits for a reader of stderr, and all is decided by then."""
    fivetran.faults.append(answer(401))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = os.write(writer, bytes(2**20))
    os.set_blocking(writer, True)
    process = script.start(stderr=writer)
    os.close(writer)
    process.stderr = os.fdopen(reader, "rb", 0)  # for finish() to read
    stored = script.response_file
    harness.wait_until(lambda: stored.exists() and "Refusal" in stored.read_text())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
    assert len(process.stderr.read(filled)) == filled
    run = script.finish(process)
    assert (run.code, run.sync) == (200, NOT_STARTED)


def test_signals_that_the_parent_ignores_stay_ignored(script):
    """As those of `script &` in a shell without job control."""
    go_on = threading.Event()
    script.command = ["sh", "-c", 'trap "" INT TERM; exec "$@"', "sh", *script.command]
    process = script.start_until(Fault("connect", lambda _: go_on.wait(PATIENCE)))
    process.send_signal(signal.SIGINT)
    process.terminate()
    go_on.set()
    assert script.finish(process).code == 0


@pytest.mark.parametrize("repetition", range(6))
def test_a_run_ended_at_any_moment_tells_the_truth(script, fivetran, repetition):
    """From its first line on; it may have come to its end by itself."""
    ended = []
    for secret, code in ((harness.API_SECRET, 0), ("another", 200)) * 5:
        fivetran.credentials = (harness.API_KEY, secret)
        process = script.start()
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        process.terminate()
        run = script.finish(process)
        assert run.code in (143, code)
        ended.append((run, process))
    for run, process in ended:  # once more, now that all that was sent has arrived
        harness.check_truth(run, script.requests_of(process))


def test_nothing_is_sent_once_the_lock_is_taken_for_good():
    body = RequestBody()
    assert (list(body), len(body), body.sent) == ([BODY], len(BODY), True)
    body.sent = False
    with body.lock:
        sender = threading.Thread(target=lambda: list(body), daemon=True)
        sender.start()
        sender.join(0.2)  # it can only wait
        assert sender.is_alive()
        assert not body.sent


@harness.needs_mounts
def test_sigterm_is_answered_by_the_first_process_of_a_container(script):
    script.command = ["unshare", "--pid", "--fork", *script.command]
    process = script.start_until(stall("answer"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    os.kill(int(children), signal.SIGTERM)
    assert script.finish(process).code == 143


def test_a_run_that_is_killed_leaves_no_response_of_an_earlier_one(script):
    before = script.run().record
    process = script.start_until(stall("answer"))
    process.kill()
    process.communicate(timeout=PATIENCE)
    killed = harness.Run(script, process.returncode, "", "")
    assert killed.response["message"] == "No answer has come yet"
    assert killed.record == before
