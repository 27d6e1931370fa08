#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["requests>=2.32.4,<3"]
# ///
"""Force a sync of a Fivetran connector and keep a record of it.

A running sync is stopped and started again. The script does not wait for its end.

In a shell, with API key and secret in the environment (ps shows arguments to all):
  ./fivetran_execute_sync.py --connector-id speak_inexpensive
In cron, with all three inputs in a file that only its owner can read:
  0 * * * * set -a; . ~/.fivetran; ~/sync/fivetran_execute_sync.py

Arguments, and the variables that stand in for those that are missing or blank:
  --api-key KEY          FIVETRAN_API_KEY
  --api-secret SECRET    FIVETRAN_API_SECRET
  --connector-id ID      FIVETRAN_CONNECTOR_ID
  --timeout SECONDS      bound on the whole run, default 60; also: --version, --help

Files, under SHIPYARD_ARTIFACTS_DIRECTORY (default: shipyard-artifacts):
  fivetran-blueprints/responses/sync_{connector_id}_response.json
  fivetran-blueprints/variables/[{SHIPYARD_LOG_ID}_]force_sync.pickle

Exit codes:
  0   Fivetran accepted the sync     200 API key or secret refused
  1   record could not be written    201 refused for another reason
  2   bad usage, nothing was sent    203 conflict with what is under way
  130 Ctrl-C                         204 unknown connector
  249 no answer, rate limit, server error or nonsense: another try may help
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
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from getopt import GetoptError, getopt
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, TextIO

INSTALL = "python3 -m venv .venv && .venv/bin/pip install requests"
URL = "https://api.fivetran.com/v1/connections/{}/sync"
USER_AGENT = "fivetran-execute-sync/1.0.0"
HEADERS = {"Accept": "application/json;version=2", "User-Agent": USER_AGENT}
NAMES = {
    "--api-key": "FIVETRAN_API_KEY",
    "--api-secret": "FIVETRAN_API_SECRET",
    "--connector-id": "FIVETRAN_CONNECTOR_ID",
}
FLAGS = ["api-key=", "api-secret=", "connector-id=", "timeout=", "version", "help"]
DEFAULTS = {"SHIPYARD_ARTIFACTS_DIRECTORY": "shipyard-artifacts", "--timeout": "60"}
WAITS_SECONDS = (1, 2, 4)  # before another try, give or take a quarter
BODY_BYTES = 256 * 1024  # read at most; parsed, JSON takes up to 60 times as much

# The outcome of a try: an HTTP status, or one of these where that does not tell it.
ACCEPTED, NO_ANSWER, NO_WAY = 0, -1, -2
PASSING = (NO_ANSWER, 429, 500, 502, 503, 504)  # may be over at the next try
LASTING = r"VERIFY_FAILED|X509|TLS CA|SOCKS|proxy URL|Tunnel [a-z ]+: (?!429|50[0234])"
MAYBE = "The sync may have been started all the same; running this again is safe"
PLAIN = "the plain ones, not the Base64 form that Fivetran's own command line reads"
DISK = "Check the disk, and the folder that SHIPYARD_ARTIFACTS_DIRECTORY names"
PORTAL = "look for a proxy or a portal between here and Fivetran"
# Outcome, or the first digit of an HTTP status: exit code and advice.
VERDICTS = {
    ACCEPTED: (0, "It goes on without this script"),
    NO_ANSWER: (249, f"Check the network and HTTPS_PROXY. {MAYBE}"),
    NO_WAY: (249, "Check HTTPS_PROXY, and the certificates in REQUESTS_CA_BUNDLE"),
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
    state = "Nothing was sent"  # true at any time, whatever ends the run
    try:
        if {"-h", "--help", "--version"} & set(sys.argv):
            text = f"{USER_AGENT}\n" if "--version" in sys.argv else f"{__doc__}"
            write(sys.stdout, text)
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
    except GetoptError as error:
        say(sys.stderr, f"{state}: {error}. For help: --help")
        return 2
    except OSError as error:
        say(sys.stderr, f"{state}. The record cannot be written: {error}. {DISK}")
        return 1
    except KeyboardInterrupt:
        say(sys.stderr, f"Interrupted. {state}")
        return 130


def read_inputs() -> dict[str, str]:
    """Return the inputs by variable; raise GetoptError, which repeats no value."""
    if sys.version_info < (3, 9):  # noqa: UP036
        raise GetoptError("Python 3.9 or newer is needed: start this with another one")
    if not find_spec("requests"):
        raise GetoptError(f"requests is not installed; type {INSTALL}")
    options, words = getopt(sys.argv[1:], "h", FLAGS)
    if words:
        raise GetoptError("an argument stands where a flag should")
    arguments = {NAMES.get(flag, flag): value for flag, value in options}
    inputs = {
        name: value.strip()
        for source in (DEFAULTS, os.environ, arguments)  # the last counts most
        for name, value in source.items()
        if value.strip()
    }
    missing = [
        f"{flag} or {name}" for flag, name in NAMES.items() if name not in inputs
    ]
    if missing:
        raise GetoptError(f"missing {', '.join(missing)}")
    for name in ("FIVETRAN_CONNECTOR_ID", "SHIPYARD_LOG_ID"):
        if not re.fullmatch("[A-Za-z0-9_-]{0,100}", inputs.get(name, "")):
            raise GetoptError(f"{name} takes up to 100 ASCII letters, digits, _ and -")
    with suppress(ValueError):
        if 0 < float(inputs["--timeout"]) < threading.TIMEOUT_MAX:
            return inputs
    raise GetoptError("--timeout takes a positive number of seconds")


def keep(inputs: dict[str, str], response: str) -> str:
    """Replace both artifacts, each whole or not at all; return where, raise OSError."""
    artifacts = Path(inputs["SHIPYARD_ARTIFACTS_DIRECTORY"], "fivetran-blueprints")
    connector_id = inputs["FIVETRAN_CONNECTOR_ID"]
    log_id = inputs.get("SHIPYARD_LOG_ID")
    response_path = artifacts / "responses" / f"sync_{connector_id}_response.json"
    record_name = f"{log_id}_force_sync.pickle" if log_id else "force_sync.pickle"
    record = [connector_id, datetime.now(timezone.utc)]  # as Check Sync Status loads it
    contents = {
        response_path: f"{response}\n".encode(errors="backslashreplace"),
        artifacts / "variables" / record_name: pickle.dumps(record, protocol=3),
    }
    for path in contents:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
    with tempfile.TemporaryDirectory(dir=response_path.parent) as drafts:
        for path, content in contents.items():
            Path(drafts, path.name).write_bytes(content)
        for path in contents:
            Path(drafts, path.name).replace(path)
    return " and ".join(map(str, contents))


def ask(inputs: dict[str, str], deadline: float) -> tuple[int, str, str]:
    """Return the final outcome, what to tell of it, and the JSON text to store."""
    overdue = NO_ANSWER, f"no answer within {inputs['--timeout']} s", UNANSWERED, 0
    for wait in (*WAITS_SECONDS, None):
        left = deadline - time.monotonic()
        outcome, told, response, pause = within(left, send, inputs, left) or overdue
        told = f"Connector {inputs['FIVETRAN_CONNECTOR_ID']}: {told}"
        if wait is None or outcome not in PASSING:
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
        with suppress(OSError):
            results.put(call(*arguments))
        results.put(None)

    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=work, daemon=True).start()
    with suppress(queue.Empty):
        return results.get(timeout=max(0, seconds))


def send(inputs: dict[str, str], seconds: float) -> tuple[int, str, str, float]:
    """Return what one request came to, as ask() does, and the wait it asks for, or 0."""
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
        request_id = reply.headers.get("X-Request-Id", "none")
        source = f"HTTP {status}, request ID {request_id}"
        with suppress(Exception):  # a value that makes no sense is ignored
            pause = Retry().get_retry_after(raw) or 0.0
        raw.enforce_content_length = False  # keep what came of a body cut short
        body = raw.read(BODY_BYTES, decode_content=True)
        headless = raw.length_remaining is None and not raw.chunked and not body
        if headless or (raw.length_remaining and len(body) < BODY_BYTES):
            raise http.client.IncompleteRead(body)
        content = json.loads(body.decode())
        if not isinstance(content, dict):
            raise TypeError("not a JSON object")
        response = to_json(content)  # raises an error for NaN, or nesting too deep
        accepted = status // 100 == 2 and content.get("code") == "Success"
        outcome = ACCEPTED if accepted else status
    except Exception as error:  # noqa: BLE001
        outcome, content = explain(error, status, body.decode(errors="replace"))
        response = to_json(content)
    code, message = content.get("code", "no code"), content.get("message", "no message")
    told = f"{source}: {code}: {message}"
    token = base64.b64encode(os.fsencode(f"{key}:{secret}")).decode()
    for text in (token, secret, key):
        if len(text) > 5:  # else it is no secret, but part of common words
            told = told.replace(text, "***")
            response = response.replace(to_json(text)[1:-1], "***")
    return outcome, told[:400].rstrip("."), response, pause


def explain(error: Any, status: int, body: str) -> tuple[int, dict[str, Any]]:
    """Return outcome and content where an error came, after status and body, if at all."""
    import requests
    from urllib3.exceptions import SSLError

    garbled = isinstance(error, requests.ConnectionError)
    while error.__cause__ or error.__context__:  # requests and urllib3 wrap errors
        error = error.__cause__ or error.__context__
    silent = isinstance(error, (OSError, SSLError))
    if status or (garbled and not silent):
        content = {"code": "InvalidResponse", "message": str(error), "body": body}
        outcome = status or 2
    else:  # what is no OSError is about the proxy's address, and may show its password
        message = str(error) if silent else type(error).__name__
        outcome, content = NO_WAY, {"code": "NoResponse", "message": message}
    if silent or isinstance(error, http.client.IncompleteRead):
        outcome = outcome if re.search(LASTING, str(error)) else NO_ANSWER
    return outcome, content


def say(stream: TextIO | None, text: str) -> None:
    """Print a line with the UTC time; what is not printable is made visible."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    write(stream, f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} {line}\n")


def write(stream: TextIO | None, text: str) -> None:
    """Print at once; a stream that is closed, or that nobody reads, holds up nothing."""
    if stream:
        line = text.encode(stream.encoding, "backslashreplace")
        within(0.5, os.write, stream.fileno(), line)


if __name__ == "__main__":
    # At once, whatever thread still hangs; nothing is left to flush or to clean up.
    os._exit(main())
