"""The truth about the sync, in all ways through three tries.

What lies between can behave in thirteen ways, or hang until a signal ends the run.
`ALL_WAYS=1 pytest tests/test_ways.py` tries all 1,534.
"""

import itertools
import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path

import harness
from fake_fivetran import Fault
from faults import OK, REFUSAL, SUCCESS, answer, close, page, send
from harness import MAYBE_STARTED, NOT_STARTED, STARTED

import fivetran_execute_sync as script

FINAL = {
    "accepted": answer(200),
    "401": answer(401),
    "404": answer(404),
    "409": answer(409),
    "proxy refuses": send(b"HTTP/1.1 407 No\r\n\r\n", "connect"),
}
UNSENT = {
    "429": answer(429),
    "proxy fails": send(b"HTTP/1.1 502 No\r\n\r\n", "connect"),
    "handshake is cut": close("handshake"),
}
UNCLEAR = {
    "500": answer(500),
    "403 page": page(403),
    "answer is cut": send(OK + b"Content-Length: 44\r\n\r\n" + SUCCESS[:40]),
    "closed": close("answer"),
    "2xx with another code": page(200, REFUSAL),
}
AGAIN = {**UNSENT, **UNCLEAR}
FAULTS = {**FINAL, **AGAIN}
CODES = {"accepted": 0, "401": 200, "404": 204, "409": 203, "proxy refuses": 1}
STORED = {"accepted": "Success", "403 page": "InvalidResponse"}
STORED.update(dict.fromkeys(["closed", "proxy refuses", "proxy fails"], "NoResponse"))
# SIGALRM is the signal of the timeout, sent before its time.
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGALRM: 249}
HANGS = list(itertools.product(("connect", "handshake", "answer"), SIGNALS))


def all_ways():
    """Yield every way: the behaviours met, or a stage and a signal at the end."""
    for length, more in enumerate([(), (), AGAIN]):
        for begin in itertools.product(AGAIN, repeat=length):
            yield from ((*begin, last) for last in (*FINAL, *HANGS, *more))


def some_ways():
    """Return all that end early, one for each beginning of two tries, and 40 more."""
    seed = random.randrange(2**32)
    print("seed", seed)  # shown if the test fails
    ways = list(all_ways())
    random.Random(seed).shuffle(ways)
    long = [way for way in ways if len(way) == 3]
    beginnings = {way[:2]: way for way in long}
    return [way for way in ways if len(way) < 3] + [*beginnings.values(), *long[:40]]


def expected(way):
    """Return the sentence and the exit code: what Fivetran knows after this way."""
    last = way[-1]
    if last == "accepted":
        return STARTED, 0
    unclear = [step for step in way if step in UNCLEAR or step[0] == "answer"]
    code = SIGNALS[last[1]] if last in HANGS else CODES.get(last, 249)
    return MAYBE_STARTED if unclear else NOT_STARTED, code


def hang(stage, number, folder, again):
    """Stall, and send a signal until the run ends; note a run that needed a second."""

    def act(sock):
        sock.settimeout(2)
        while True:
            os.kill(int((folder / "pid.out").read_text()), number)
            try:
                while sock.recv(65_536):
                    pass
                return
            except socket.timeout:
                again.append(folder)

    return Fault(stage, act)


def test_every_way_ends_with_the_truth(fivetran, tmp_path):
    ways = list(all_ways()) if os.environ.get("ALL_WAYS") else some_ways()
    jobs, again = [], []
    for number, way in enumerate(ways):
        client, folder = f"way{number}", tmp_path / str(number)
        folder.mkdir()
        faults = [FAULTS.get(step) or hang(*step, folder, again) for step in way]
        fivetran.faults[client] = faults
        proxy = fivetran.proxy_url.replace("//", f"//{client}:pa55@")
        jobs.append((str(folder), proxy))
    environment = fivetran.environment({**os.environ, **harness.INPUTS})
    environment["PYTHONPATH"] = str(harness.SCRIPT.parent)
    command = [sys.executable, __file__]
    process = harness.execute(command, input=json.dumps(jobs), env=environment)
    for number, code in enumerate(json.loads(process.stdout)):
        way, folder = ways[number], tmp_path / str(number)
        out, err = [(folder / name).read_text() for name in ("1.out", "2.out")]
        print(way, out, err, sep="\n")
        run = harness.Run(folder, code, out, err)
        run.check(fivetran.requests_of(f"way{number}"))
        assert (run.sync, run.code) == expected(way)
        assert bool(run.record) == (run.sync != NOT_STARTED)
        if way[-1] in STORED:
            assert run.response["code"] == STORED[way[-1]]
    assert len(again) <= 1, "signals were lost"


def become_a_run(folder, proxy):
    """Run the script in this folder, and never return."""
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(f"{stream}.out", os.O_WRONLY | os.O_CREAT), stream)
    Path("pid.out").write_text(str(os.getpid()))
    os.environ["HTTPS_PROXY"] = proxy
    try:
        os._exit(script.main())
    finally:
        traceback.print_exc()
        os._exit(99)


def main(jobs, at_once=4):
    """Run the script in forks of a process that does nothing else; print exit codes."""
    script.WAITS_SECONDS = (0.01, 0.01)
    sys.argv[1:] = ["--timeout=3600"]
    pids, codes = [], {}
    for number in range(len(jobs) + at_once):
        if number >= at_once:
            pid, status = os.wait()
            codes[pid] = os.waitstatus_to_exitcode(status)
        if number < len(jobs):
            pids.append(os.fork() or become_a_run(*jobs[number]))
    print(json.dumps([codes[pid] for pid in pids]))


if __name__ == "__main__":
    main(json.load(sys.stdin))
