#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["requests>=2.32.4,<3"]
# ///
"""Force a sync of a Fivetran connector and keep a record of it.

A running sync is stopped and started again; nothing waits for its end.
In a shell, with API key and API secret in the environment:
  .venv/bin/python fivetran_execute_sync.py --connector-id speak_inexpensive
In cron, with all three inputs exported by a file only its owner can read:
  0 * * * * . ~/.fivetran; cd ~/sync; .venv/bin/python fivetran_execute_sync.py

Arguments, else variables (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE count too):
  --api-key KEY        FIVETRAN_API_KEY (ps shows arguments to everybody)
  --api-secret SECRET  FIVETRAN_API_SECRET
  --connector-id ID    FIVETRAN_CONNECTOR_ID
  --timeout SECONDS    bound on the run, default 60; also --help, --version

Files, under SHIPYARD_ARTIFACTS_DIRECTORY (default: shipyard-artifacts):
  fivetran-blueprints/responses/sync_{connector_id}_response.json
  fivetran-blueprints/variables/[{SHIPYARD_LOG_ID}_]force_sync.pickle

Exit codes:
  0   Fivetran accepted the sync     200 API key or secret refused
  1   record could not be written    201 refused for another reason
  2   bad usage, nothing was sent    203 conflict with what is under way
  130 Ctrl-C                         204 unknown connector
  249 no answer, rate limit, 5xx, unreadable answer: another try may help
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import pickle
import queue
import random
import re
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from datetime import datetime, timezone
from getopt import GetoptError as UsageError
from getopt import getopt
from pathlib import Path
from typing import Any, Callable, TextIO

SETUP = "python3 -m venv .venv && .venv/bin/pip install requests; use .venv/bin/python"
URL = "https://api.fivetran.com/v1/connections/{}/sync"
AGENT = "fivetran-execute-sync/1.0.0"
HEADERS = {"Accept": "application/json;version=2", "User-Agent": AGENT}
NAMES = {
    "--api-key": "FIVETRAN_API_KEY",
    "--api-secret": "FIVETRAN_API_SECRET",
    "--connector-id": "FIVETRAN_CONNECTOR_ID",
}
FLAGS = ["api-key=", "api-secret=", "connector-id=", "timeout="]
WAITS_SECONDS = (1, 2, 4)  # before another try, give or take a quarter
BODY_BYTES, BODY_LISTS = 128 * 1024, 50  # more would take too much memory as JSON

# The outcome of a try: an HTTP status, or one of these where that does not tell it.
ACCEPTED, NO_ANSWER, HOPELESS = 0, -1, -2
WORTH_A_RETRY = (NO_ANSWER, 429, 500, 502, 503, 504)  # but not errors that say this:
FINAL = r"VERIFY_FAILED|X509|TLS CA|SOCKS|proxy URL|Tunnel [a-z ]+: (?!429|50[0234])"
MAYBE = "The sync may have been started all the same; running this again is safe"
PLAIN = "the plain ones, not the Base64 form that Fivetran's own command line reads"
DISK = "Check the disk, and the folder that SHIPYARD_ARTIFACTS_DIRECTORY names"
PORTAL = "look for a proxy or a portal between here and Fivetran"
# Outcome, or the first digit of an HTTP status: exit code and advice.
VERDICTS = {
    ACCEPTED: (0, "It goes on without this script"),
    NO_ANSWER: (249, f"Check the network and HTTPS_PROXY. {MAYBE}"),
    HOPELESS: (249, "Check HTTPS_PROXY, and the certificates in REQUESTS_CA_BUNDLE"),
    2: (249, f"Fivetran does not answer like this: {PORTAL}. {MAYBE}"),
    3: (201, f"Redirects are not followed: {PORTAL}"),
    4: (201, "Fivetran does not take this request: look for a newer version of this"),
    5: (249, f"Fivetran has a problem: see status.fivetran.com. {MAYBE}"),
    401: (200, f"Check FIVETRAN_API_KEY and FIVETRAN_API_SECRET: {PLAIN}"),
    403: (200, "Give the API key a role that may sync this connection"),
    404: (204, "Take the connector ID from the Setup tab of the connection"),
    409: (203, "Wait for what is under way on this connection, then run this again"),
    429: (249, "The account's rate limit is used up: run this later, or less often"),
}
to_json = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).encode
UNANSWERED = to_json({"code": "NoResponse", "message": f"No answer came. {MAYBE}"})


def main() -> int:
    """Force the sync, keep its record, tell the outcome, return the exit code."""
    start = time.monotonic()
    warnings.simplefilter("ignore")  # libraries' words to programmers
    state = "Nothing was sent"  # true at any time, whatever ends the run
    try:
        if {"-h", "--help", "--version"} & set(sys.argv):
            write(sys.stdout, f"{AGENT}\n" if "--version" in sys.argv else f"{__doc__}")
            return 0
        inputs = read_inputs()
        sync = f"sync of connector {inputs['FIVETRAN_CONNECTOR_ID']}"
        # A record of no answer comes first: should this run be killed, none of an
        # earlier one is left, and folders that cannot be written are found in time.
        keep(inputs, UNANSWERED)
        say(sys.stdout, f"Forcing a {sync}")
        state = f"The {sync} may have been started"
        outcome, told, response = ask(inputs, start + float(inputs["--timeout"]))
        code, advice = VERDICTS.get(outcome, VERDICTS.get(outcome // 100, VERDICTS[2]))
        state = told if code else f"The {sync} was started all the same"
        say(sys.stdout, f"Kept {keep(inputs, response)}")
        say(sys.stderr if code else sys.stdout, f"{told}. {advice}")
        return code
    except UsageError as error:
        say(sys.stderr, f"{state}: {error}. For help: --help")
        return 2
    except OSError as error:
        say(sys.stderr, f"{state}. The record cannot be written: {error}. {DISK}")
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one has no say
        say(sys.stderr, f"Interrupted. {state}")
        return 130


def read_inputs() -> dict[str, str]:
    """Return the inputs by variable; raise UsageError, which repeats no value."""
    if sys.version_info < (3, 9):  # noqa: UP036
        raise UsageError("Python 3.9 or newer is needed: use another one")
    try:
        import requests  # noqa: F401
    except ImportError:
        raise UsageError(f"requests is not installed; type {SETUP}") from None
    options, words = getopt(sys.argv[1:], "", FLAGS)
    if words:
        raise UsageError("an argument without a flag, such as --connector-id")
    inputs = {"SHIPYARD_ARTIFACTS_DIRECTORY": "shipyard-artifacts", "--timeout": "60"}
    for source in (os.environ, {NAMES.get(flag, flag): text for flag, text in options}):
        inputs.update({k: v.strip() for k, v in source.items() if v.strip()})
    missing = [f"{flag} or {key}" for flag, key in NAMES.items() if key not in inputs]
    if missing:
        raise UsageError(f"missing {', '.join(missing)}")
    for name in ("FIVETRAN_CONNECTOR_ID", "SHIPYARD_LOG_ID"):
        if not re.fullmatch("[A-Za-z0-9_-]{0,100}", inputs.get(name, "")):
            raise UsageError(f"{name} or flag: at most 100 ASCII letters, digits, _ -")
    with suppress(ValueError):
        if 0 < float(inputs["--timeout"]) < threading.TIMEOUT_MAX:
            return inputs
    raise UsageError("--timeout takes a positive number of seconds")


def keep(inputs: dict[str, str], response: str) -> str:
    """Replace both artifacts, each whole or not at all; return where, raise OSError."""
    artifacts = Path(inputs["SHIPYARD_ARTIFACTS_DIRECTORY"], "fivetran-blueprints")
    connector_id = inputs["FIVETRAN_CONNECTOR_ID"]
    response_path = artifacts / "responses" / f"sync_{connector_id}_response.json"
    name = "_".join(filter(None, (inputs.get("SHIPYARD_LOG_ID"), "force_sync.pickle")))
    record = [connector_id, datetime.now(timezone.utc)]  # as Check Sync Status loads it
    contents = {
        response_path: f"{response}\n".encode(errors="backslashreplace"),
        artifacts / "variables" / name: pickle.dumps(record, protocol=3),
    }
    suffix = f".{random.getrandbits(64):x}"
    drafts = {path: path.with_name(f".{path.name}{suffix}") for path in contents}
    try:
        for path, draft in drafts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            draft.write_bytes(contents[path])
        for path, draft in drafts.items():
            draft.replace(path)
    finally:
        for draft in drafts.values():
            with suppress(OSError):
                draft.unlink()
    return " and ".join(map(str, contents))


def ask(inputs: dict[str, str], deadline: float) -> tuple[int, str, str]:
    """Return the final outcome, what to tell of it, and the JSON text to store."""
    overdue = NO_ANSWER, f"no answer within {inputs['--timeout']} s", UNANSWERED, 0
    for wait in (*WAITS_SECONDS, None):
        left = deadline - time.monotonic()
        outcome, told, response, pause = within(left, send, inputs, left) or overdue
        told = f"Connector {inputs['FIVETRAN_CONNECTOR_ID']}: {told}"
        if wait is None or outcome not in WORTH_A_RETRY or time.monotonic() >= deadline:
            break
        pause = pause or wait * random.uniform(0.75, 1.25)
        if pause >= deadline - time.monotonic():
            say(sys.stderr, f"No time to wait {pause:.0f} s for another try")
            break
        say(sys.stderr, f"{told}. Trying again in {pause:.1f} s")
        time.sleep(pause)
    return outcome, told, response


def within(seconds: float, call: Callable[..., Any], *arguments: object) -> Any:
    """Return what the call returns, or None if it fails or takes more than `seconds`.

    Then it goes on in a thread that nothing waits for: no signal wakes a blocked name
    look-up, and every byte starts requests' timeout anew (psf/requests#1928, #3099).
    """

    def work() -> None:
        with suppress(Exception):
            results.put(call(*arguments))
        results.put(None)

    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=work, daemon=True).start()
    with suppress(queue.Empty):
        return results.get(timeout=max(0, seconds))


def send(inputs: dict[str, str], seconds: float) -> tuple[int, str, str, float]:
    """Return what one request comes to, as ask() does, and the wait it is told."""
    import requests
    from requests.auth import HTTPBasicAuth
    from urllib3 import Retry

    key, secret, connector_id = (inputs[name] for name in NAMES.values())
    url = URL.format(connector_id)
    source, status, body, pause = "no answer", 0, b"", 0.0
    try:
        session = requests.Session()
        session.auth = HTTPBasicAuth(os.fsencode(key), os.fsencode(secret))
        post = requests.Request("POST", url, HEADERS, json={"force": True})
        settings: Any = session.merge_environment_settings(url, {}, True, None, None)
        # session.send() reads all of a redirect's body, even if told not to follow it
        reply = session.get_adapter(url).send(
            session.prepare_request(post), timeout=(seconds / 2, seconds), **settings
        )  # no more than half of the time to connect: another try may do better
        status, raw = reply.status_code, reply.raw
        source = f"HTTP {status}, request ID {raw.headers.get('X-Request-Id', '?'):.80}"
        with suppress(Exception):  # a value that makes no sense is ignored
            pause = float(Retry().get_retry_after(raw) or 0)
        raw.enforce_content_length = False  # keep what came of a body cut short
        body = raw.read(BODY_BYTES, decode_content=True)
        # http.client does not notice an end in the headers: neither length nor a byte
        nothing = raw.length_remaining is None and not raw.chunked and not body
        if nothing or (raw.length_remaining and len(body) < BODY_BYTES):
            raise http.client.IncompleteRead(body)
        if body.count(b"[") + body.count(b"{") > BODY_LISTS:
            raise ValueError("too many lists and objects")
        content = {**json.loads(body.decode())}  # a TypeError if it is no object
        response = to_json(content)  # raises an error for NaN, or nesting too deep
        accepted = status // 100 == 2 and content.get("code") == "Success"
        outcome = ACCEPTED if accepted else status
    except Exception as error:  # noqa: BLE001
        outcome, content = explain(error, status, body.decode(errors="replace"))
        response = to_json(content)
    told = f"{source}: {content.get('code', 'no code')}: {content.get('message', '')}"
    token = base64.b64encode(os.fsencode(f"{key}:{secret}")).decode()
    for text in sorted((token, secret, key), key=len, reverse=True):
        if len(text) > 5:  # else it is no secret, but part of common words
            told = told.replace(text, "***")
            response = response.replace(to_json(text)[1:-1], "***")
    return outcome, told[:400].rstrip(".: "), response, pause


def explain(error: Any, status: int, body: str) -> tuple[int, dict[str, Any]]:
    """Classify a failed try: return its outcome, and the JSON object to keep for it."""
    from requests.exceptions import ConnectionError, InvalidHeader, SSLError

    no_trust = isinstance(error, SSLError)
    no_http = isinstance(error, (ConnectionError, InvalidHeader)) and not no_trust
    while error.__cause__ or (error.__context__ and not error.__suppress_context__):
        error = error.__cause__ or error.__context__  # libraries wrap errors in errors
    no_network = no_trust or isinstance(error, OSError)
    outcome = status or 2
    content = {"code": "InvalidResponse", "message": str(error), "body": body}
    if not status and (no_network or not no_http):
        # what is no OSError is about the proxy's address, and may show its password
        message = str(error) if no_network else type(error).__name__
        outcome, content = HOPELESS, {"code": "NoResponse", "message": message}
    lost = no_network or isinstance(error, http.client.IncompleteRead)
    if lost and status // 100 not in (3, 4) and not re.search(FINAL, str(error)):
        outcome = NO_ANSWER
    return outcome, content


def say(stream: TextIO | None, text: str) -> None:
    """Print a line with the UTC time; what is not printable is made visible."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    write(stream, f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} {line}\n")


def write(stream: TextIO | None, text: str) -> None:
    """Print at once; a stream that is closed, or that nobody reads, delays nothing."""
    if stream:
        line = text.encode(stream.encoding, "backslashreplace")
        within(0.5, os.write, stream.fileno(), line)


if __name__ == "__main__":
    # At once, whatever thread still hangs; nothing is left to flush or to clean up.
    os._exit(main())
