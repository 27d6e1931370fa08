"""How runs end: with the right exit code, and in time; Run.check() judges the truth."""

import gzip
import os
import random
import signal
import subprocess
import threading
import time

import harness
import pytest
from fake_fivetran import Api, FakeFivetran, Fault, Server
from faults import CHUNKED, OK, SUCCESS, answer, close, page, send, stall, trickle
from harness import MAYBE_STARTED, NOT_STARTED, PATIENCE, STARTED

GZIP = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(SUCCESS)
LONG = SUCCESS.replace(b"on", b"x" * 65_536)
SSH = b"SSH-2.0-OpenSSH_9\r\n"
# What a try may meet, beside what test_ways.py has, and the truth if the next is refused.
MET = {
    "accepted in chunks": (send(CHUNKED + b"2c\r\n%b\r\n0\r\n\r\n" % SUCCESS), STARTED),
    "accepted, compressed": (send(GZIP), STARTED),
    "accepted in 64 KiB": (page(200, SUCCESS.ljust(65_536) + b"x"), STARTED),
    "not whole in 64 KiB": (page(200, LONG), MAYBE_STARTED),
    "cut in a chunk": (send(CHUNKED + b"ff\r\n" + SUCCESS), MAYBE_STARTED),
    "no URL": (page(307, b"", {"Location": "https://["}), MAYBE_STARTED),
    "redirect": (page(307, SUCCESS, {"Location": "/elsewhere"}), MAYBE_STARTED),
    "proxy closes": (close("connect"), NOT_STARTED),
    "proxy speaks SSH": (send(SSH, "connect"), NOT_STARTED),
}


def test_what_is_sent_forces_a_sync(script, fivetran):
    assert script.run().sync == STARTED
    (request,) = fivetran.requests
    assert request.path == f"/v1/connections/{harness.CONNECTOR_ID}/sync"
    assert request.body == b'{"force": true}'
    assert request.headers["accept"] == "application/json;version=2"
    assert request.headers["content-type"] == "application/json"
    version = harness.execute([*script.command, "--version"]).stdout.strip()
    assert request.headers["user-agent"] == version == "fivetran-execute-sync/2.0.0"


@pytest.mark.parametrize("name", MET)
def test_a_refusal_of_a_later_try_says_nothing_about_the_first(script, name):
    fault, sync = MET[name]
    if sync == STARTED:
        fault = fault._replace(sync="started")
    run = script.run(faults=[fault, answer(404)])
    assert (run.sync, run.code) == (sync, 0 if sync == STARTED else 204)


# A proxy and a CA bundle that cannot be used, with words of what is said about it.
UNUSABLE = [
    ("http://user:pa55@", None, "TypeError"),
    ("socks5://user:pa55@h", None, "dependencies for SOCKS support"),
    ("http:///user:pa55@h", None, "Please check proxy URL."),
    ("https://127.0.0.1:{port}", None, "Error"),  # it speaks http
    (None, "/dev/null", "no certificate or crl found"),
    (None, "/missing.pem", ": /missing.pem. "),
    (None, "/proc/self/mem", "Input/output error"),  # even for root
    ("http://127.0.0.1:{port}", None, "certificate verify failed"),
    ("http://127.0.0.1:{port}", "{others}", "match"),  # the certificate of another host
    (None, None, "SSLError, [SSL: "),  # the server does not speak TLS
]


@pytest.mark.parametrize(("proxy", "bundle", "words"), UNUSABLE)
def test_a_local_problem_ends_the_run_at_once(script, proxy, bundle, words):
    with FakeFivetran(certified_host="fivetran.example") as other:
        variables = {"HTTPS_PROXY": proxy, "REQUESTS_CA_BUNDLE": bundle}
        values = {"others": other.ca_bundle, "port": other.proxy_url.split(":")[2]}
        variables = {k: v.format(**values) for k, v in variables.items() if v}
        run = script.run(faults=[send(SSH, "handshake")], **variables)
        assert not other.requests
    assert (run.code, run.sync, run.waits) == (1, NOT_STARTED, [])
    assert " No connection to api.fivetran.com: " in run.verdict
    assert words in run.verdict
    advice = "Check HTTPS_PROXY, ALL_PROXY, REQUESTS_CA_BUNDLE and the clock."
    assert run.verdict.endswith(advice)


@pytest.mark.skipif(subprocess.call(["unshare", "-m", "true"]), reason="takes root")
def test_without_a_proxy_the_way_is_direct(script, fivetran, tmp_path):
    address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.2"
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{address} api.fivetran.com\n")
    mount = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    script.command = ["unshare", "-m", "sh", "-c", mount, "sh", *script.command]
    with Server(fivetran, (address, 443), Api):
        script.run(HTTPS_PROXY="")
    assert (len(fivetran.requests), fivetran.tunnels) == (1, [])


TRICKLES = [trickle(OK + b"X: ", b"x"), trickle(CHUNKED, b"1\r\n \r\n")]


@pytest.mark.parametrize("fault", [stall("connect"), stall("handshake"), *TRICKLES])
def test_the_timeout_ends_what_has_no_end_though_the_parent_ignores_alarms(
    script, fault
):
    script.command = ["sh", "-c", 'trap "" ALRM; exec "$@"', "sh", *script.command]
    run = script.run("--timeout=1.5", faults=[fault])
    assert run.code == 249
    told = "Timed out after 1.5 s. Check the network and status.fivetran.com."
    assert f"started. {told}" in run.verdict
    assert run.response == {"code": "NoResponse", "message": "Timed out after 1.5 s"}


def test_the_timeout_ends_a_run_whose_output_nobody_reads(script):
    run = script.run("--timeout=1.5", stdout=harness.full_pipe()[1])
    assert (run.code, run.sync) == (249, NOT_STARTED)


def test_a_connection_that_does_not_come_about_costs_ten_seconds(script):
    process = script.start_until(stall("handshake"))
    begin = time.monotonic()
    lines = [process.stdout.readline().decode() for _ in range(2)]
    assert lines[1].endswith(f"timed out. {PROXY}")
    assert time.monotonic() - begin > 9
    process.terminate()
    assert script.finish(process).sync == NOT_STARTED


@pytest.mark.parametrize(("slow", "seconds"), [("connect", 6), ("answer", 11)])
def test_a_slow_proxy_and_a_slow_answer_are_no_fault(script, fivetran, slow, seconds):
    fivetran.misbehave = lambda stage, _: time.sleep(seconds * (stage == slow))
    run = script.run()
    assert (run.code, run.waits) == (0, [])


SOON = answer(502, {"Retry-After": "1"})


@pytest.mark.parametrize(("earlier", "usual"), enumerate([1, 4, 15, 30]))
def test_the_waits_grow_to_half_a_minute(script, earlier, usual):
    """The waits before this one are cut short by the server."""
    process = script.start(faults=[SOON] * earlier + [close("answer")])
    lines = [process.stdout.readline().decode() for _ in range(earlier + 2)]
    assert lines[-1].endswith(f" again in {usual} s.\n")
    process.terminate()
    assert script.finish(process).sync == MAYBE_STARTED


def test_the_announced_wait_is_kept_and_the_fifth_try_is_the_last(script, fivetran):
    run = script.run(faults=[*[SOON] * 4, close("connect")])
    assert (run.code, run.sync, run.waits) == (249, MAYBE_STARTED, [1] * 4)
    assert run.response["code"] == "NoResponse"
    moments = [request.at for request in fivetran.requests]
    assert all(later - at > 0.9 for at, later in zip(moments, moments[1:]))


def test_a_wait_that_does_not_fit_into_the_time_left_ends_the_run(script):
    for value in ("60", "9" * 400):
        run = script.run("--timeout=50", faults=[answer(429, {"Retry-After": value})])
        assert (run.code, run.sync, run.waits) == (249, NOT_STARTED, [])
    run = script.run("--timeout=30", faults=[SOON, SOON, SOON, close("answer")])
    assert (run.code, run.waits) == (249, [1, 1, 1])
    assert " No complete answer from api.fivetran.com: RemoteDisconn" in run.verdict


LATER = {"Retry-After": "50"}
PROXY = "Check the network, and HTTPS_PROXY if it needs a proxy. Trying again in 1 s.\n"
REFUSED = f"ProxyError, [Errno 111] Connection refused. {PROXY}"
WAITING = [
    ({"faults": [answer(503, LATER)]}, "in 50 s.", MAYBE_STARTED, harness.RESTART),
    ({"faults": [answer(429, LATER)]}, "in 50 s.", NOT_STARTED, ""),
    ({"HTTPS_PROXY": "http://user:pa55@127.0.0.1:1"}, REFUSED, NOT_STARTED, ""),
]


@pytest.mark.parametrize(("met", "announced", "sync", "advice"), WAITING)
def test_a_signal_ends_a_wait(script, met, announced, sync, advice):
    script.run()
    process = script.start(**met)
    process.stdout.readline()
    assert announced in process.stdout.readline().decode()
    assert b"No answer has come yet" in script.response_file.read_bytes()
    process.terminate()
    run = script.finish(process)
    assert (run.code, run.verdict) == (143, f"{sync} Ended by SIGTERM.{advice}")
    assert run.response == {"code": "NoResponse", "message": "Ended by SIGTERM"}


def test_a_signal_after_the_answer_changes_nothing(script):
    """The last line waits for a reader of stderr, and all is decided by then."""
    reader, writer, filled = harness.full_pipe()
    process = script.start(faults=[answer(401)], stderr=writer)
    os.close(writer)
    process.stderr = os.fdopen(reader, "rb", 0)  # for finish() to read
    process.stdout.readline()
    deadline = time.monotonic() + PATIENCE
    while b"Refusal" not in script.response_file.read_bytes():
        assert time.monotonic() < deadline
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        process.send_signal(number)
    assert len(process.stderr.read(filled)) == filled
    assert script.finish(process).code == 200


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
        ended.append((script.finish(process), process.client))
        assert ended[-1][0].code in (143, code)
    for run, client in ended:  # once more, now that all that was sent has arrived
        run.check(fivetran.requests_of(client))
