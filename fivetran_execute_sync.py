#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["requests>=2.32.4,<3"]
# ///
"""Force a sync of a Fivetran connector, and keep a record of it.

A running sync is stopped and started again. The script does not wait for the sync
to finish.

in a shell, with the API key and secret in the environment:
  .venv/bin/python fivetran_execute_sync.py --connector-id speak_inexpensive

in cron, with all three inputs exported by ~/.fivetran:
  15 * * * * cd ~/fivetran-execute-sync && . ~/.fivetran && .venv/bin/python fivetran_execute_sync.py >> ~/fivetran.log
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import os
import pickle
import random
import re
import signal
import ssl
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TextIO

gc.disable()  # which saves a tenth of the CPU time of so short a run
warnings.simplefilter("ignore")  # libraries warn on stderr, which cron would mail
try:
    import requests
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_environ_proxies, select_proxy
except Exception as error:  # noqa: BLE001 - missing, unreadable or broken
    install = f"{sys.executable} -m pip install requests"
    sys.exit(f"requests cannot be imported: {error}. Try: {install}")

VERSION = "fivetran-execute-sync/1.0.0"

# fivetran.com/docs/developer-resources/rest-api/api-reference/connections/sync-connection
HOST = "api.fivetran.com"
URL = "https://" + HOST + "/v1/connections/{connector_id}/sync"
FORCE = b'{"force": true}'
HEADERS = {
    "Accept": "application/json;version=2",
    "Content-Type": "application/json",
    "User-Agent": VERSION,
}

CONNECT_SECONDS = 10  # for each address
WAITS_SECONDS = (1, 2, 4)  # before another try, give or take a quarter
RETRIED = {429, *range(500, 600)}  # HTTP statuses that another try may mend
RESPONSE_BYTES = 64 * 1024  # at most; Fivetran's own is about 150

# What can be true of the sync. Each completes the sentence "The sync …".
NOT_STARTED = "was not started"
MAYBE_STARTED = "may have been started"
STARTED = "was started"

# How Fivetran refuses: HTTP status, exit code, advice.
# fivetran.com/docs/rest-api/getting-started/api-response-codes
REFUSALS = {
    401: (200, "Check the API key and secret."),
    403: (200, "Give the API key a role that may sync this connector."),
    404: (204, "Copy the connector ID from its Setup tab in Fivetran."),
    409: (203, "Wait until the current sync has ended, then run this again."),
    429: (249, "Try again later: the account has used up its requests for this hour."),
}

EPILOG = """
Other users see arguments in ps: the environment is safer for the API key and secret.
HTTPS_PROXY, ALL_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are honored.

artifacts, under SHIPYARD_ARTIFACTS_DIRECTORY or else shipyard-artifacts:
  fivetran-blueprints/responses/sync_{connector_id}_response.json
  fivetran-blueprints/variables/[{SHIPYARD_LOG_ID}_]force_sync.pickle

exit codes:
  0    Fivetran accepted the sync
  1    an artifact, a network setting or requests is at fault: see the last line
  2    an input is missing or wrong
  130  ended by Ctrl-C (SIGINT)
  143  ended by SIGTERM
  200  API key or secret refused, or its role (HTTP 401, 403)
  201  refused for another reason (other HTTP 4xx)
  203  conflict with a running sync (HTTP 409)
  204  unknown connector (HTTP 404)
  249  no answer from Fivetran, rate limit or outage: try again later
"""

# What hide() hides. The longest comes first, since it may contain another.
SECRETS: list[str] = []


class Inputs(NamedTuple):
    """What the user wants, checked."""

    api_key: str
    api_secret: str
    connector_id: str
    timeout: float  # seconds
    response: Path  # artifact
    record: Path  # artifact


class Outcome(NamedTuple):
    """What came of a try, or of the whole run."""

    exit_code: int
    reason: str
    advice: str = ""
    response: str = ""  # JSON to be stored; empty where there is none
    refused: bool = False  # by Fivetran itself: this try has started nothing
    retry: bool = False
    retry_after: float = 0  # seconds, where Fivetran asks for it


class Stopped(BaseException):
    """A signal has ended the run; args[0] is the Outcome."""


class Sync:
    """What is known of the sync; also the body of the request, to see when it is sent.

    requests asks for the body once the connection is up and the headers are sent. Until
    then Fivetran cannot have started anything; from then on it may have.
    """

    def __init__(self) -> None:
        self.truth = NOT_STARTED
        self.sent = False  # by the present try
        self.over = False  # from then on nothing is sent, and signals are ignored

    def __len__(self) -> int:
        return len(FORCE)

    def __iter__(self) -> Iterator[bytes]:
        # Called in the thread of a try, which sets `truth` before it reads `over`. The main
        # thread does the reverse, so nothing is sent after it has read "was not started".
        self.sent = True
        self.truth = MAYBE_STARTED
        if self.over:
            raise OSError("the run is over")
        yield FORCE

    def stop(self, number: int, frame: object) -> None:
        """Handle a signal: raise Stopped, once, and not when the sync was started."""
        if not self.over and self.truth != STARTED:
            self.over = True
            reason = f"ended by {signal.Signals(number).name}"
            advice = "Run this again if you still want the sync."
            raise Stopped(Outcome(128 + number, reason, advice))


def main() -> int:
    """Force the sync, keep a record, say what came of it; return the exit code."""
    inputs = read_inputs(sys.argv[1:], os.environ)
    sync = Sync()
    truth = NOT_STARTED  # unless force_sync() gets as far as sending
    outcome = Outcome(1, "nothing was sent")
    try:
        outcome = force_sync(inputs, sync)
        truth = sync.truth  # once, since an abandoned try may still change it
        ended_at = datetime.now(timezone.utc)
        store_response(inputs, outcome)
        if truth != NOT_STARTED:
            store_record(inputs, ended_at)
    except OSError as error:
        reason = f"an artifact cannot be written: {error} ({outcome.reason})"
        advice = "Make room and check permissions, or set SHIPYARD_ARTIFACTS_DIRECTORY."
        outcome = outcome._replace(exit_code=1, reason=reason, advice=advice)

    reason = outcome.reason.rstrip(".")
    verdict = f"{reason}. The sync {truth}. {outcome.advice}".rstrip()
    say(inputs, verdict, sys.stderr if outcome.exit_code else sys.stdout)
    return outcome.exit_code


def read_inputs(arguments: Sequence[str], environment: Mapping[str, str]) -> Inputs:
    """Return the inputs; exit with code 2 if one is missing or wrong."""
    parser = argument_parser()
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error("unrecognized argument (not shown: it may be a secret)")

    def value(variable: str, argument: str = "") -> str:
        return argument.strip() or environment.get(variable, "").strip()

    api_key = value("FIVETRAN_API_KEY", given.api_key)
    api_secret = value("FIVETRAN_API_SECRET", given.api_secret)
    connector_id = value("FIVETRAN_CONNECTOR_ID", given.connector_id)
    log_id = value("SHIPYARD_LOG_ID")
    folder = value("SHIPYARD_ARTIFACTS_DIRECTORY") or "shipyard-artifacts"
    # As it is sent in the header.
    token = base64.b64encode(os.fsencode(f"{api_key}:{api_secret}")).decode()
    SECRETS[:] = sorted((api_key, api_secret, token), key=len, reverse=True)

    needed = {
        "--api-key or FIVETRAN_API_KEY": api_key,
        "--api-secret or FIVETRAN_API_SECRET": api_secret,
        "--connector-id or FIVETRAN_CONNECTOR_ID": connector_id,
    }
    missing = [name for name in needed if not needed[name]]
    if missing:
        parser.error(f"missing {', '.join(missing)}")
    for name, text in {"connector ID": connector_id, "SHIPYARD_LOG_ID": log_id}.items():
        text = hide(text)  # which makes *** of a secret in the wrong place
        if not re.fullmatch("[A-Za-z0-9_-]*", text):
            parser.error(f"invalid {name} {text!r}: use letters, digits, _ and -")

    artifacts = Path(folder, "fivetran-blueprints")
    response = artifacts / "responses" / f"sync_{connector_id}_response.json"
    prefix = f"{log_id}_" if log_id else ""
    record = artifacts / "variables" / f"{prefix}force_sync.pickle"
    return Inputs(api_key, api_secret, connector_id, given.timeout, response, record)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser; what is not given is left empty."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default="",
        allow_abbrev=False,
    )
    parser.add_argument("--api-key", help="default: FIVETRAN_API_KEY")
    parser.add_argument("--api-secret", help="default: FIVETRAN_API_SECRET")
    parser.add_argument("--connector-id", help="default: FIVETRAN_CONNECTOR_ID")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=120,
        help="limit for the network, with all tries and waits; default: 120",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    return parser


def seconds(text: str) -> float:
    """Return the value of --timeout; raise an error for argparse to tell."""
    value = float(text)
    if 0 < value < threading.TIMEOUT_MAX:
        return value
    raise argparse.ArgumentTypeError(f"{text} is out of range")


def store_response(inputs: Inputs, outcome: Outcome) -> None:
    """Store the response, or an object of its shape that says why there is none."""
    no_response = {"code": "NoResponse", "message": outcome.reason}
    response = outcome.response or json.dumps(no_response)
    replace_file(inputs.response, hide(response).encode())


def store_record(inputs: Inputs, ended_at: datetime) -> None:
    """Store connector ID and time, as Shipyard's Check Sync Status loads them."""
    record = [inputs.connector_id, ended_at]  # protocol 3 is for any Python 3
    replace_file(inputs.record, pickle.dumps(record, protocol=3))


def force_sync(inputs: Inputs, sync: Sync) -> Outcome:
    """Force the sync; return what came of it, by an answer, the timeout or a signal.

    Raises OSError, before anything is sent, if the artifacts cannot be written.
    """
    try:
        # The first process of a container gets no SIGTERM unless it has a handler.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, sync.stop)
        # If this run is killed, the response of an earlier one must not be left.
        store_response(inputs, Outcome(1, "no answer has come yet"))
        inputs.record.parent.mkdir(parents=True, exist_ok=True)
        say(inputs, f"forcing a sync; the response goes to {inputs.response}")
        outcome = try_repeatedly(inputs, sync)
        sync.over = True
    except Stopped as stopped:
        outcome = stopped.args[0]
    return outcome


def try_repeatedly(inputs: Inputs, sync: Sync) -> Outcome:
    """Send the request, up to four times; return what came of it in the end."""
    deadline = time.monotonic() + inputs.timeout
    waits = iter(WAITS_SECONDS)
    history = ""
    while True:
        outcome = try_once(inputs, sync, deadline)
        if outcome is None:
            reason = no_answer(sync.sent, f"not within {inputs.timeout:g} s{history}")
            return Outcome(249, reason, "Run this again, or with a longer --timeout.")
        usual_wait = next(waits, None)
        if not outcome.retry or usual_wait is None:
            return outcome
        wait = outcome.retry_after or usual_wait * random.uniform(0.75, 1.25)
        if time.monotonic() + wait >= deadline:
            reason = f"{outcome.reason}; too little time is left to wait {wait:.0f} s"
            return outcome._replace(reason=reason)
        say(inputs, f"{outcome.reason}. Trying again in {wait:.1f} s")
        time.sleep(wait)
        history = f", after {outcome.reason}"


def try_once(inputs: Inputs, sync: Sync, deadline: float) -> Outcome | None:
    """Send the request once; return what came of it, None if nothing has in time.

    The thread can be left behind. Nothing else bounds a name look-up that hangs, or an
    answer that trickles in: each byte starts the timeout of requests anew
    (psf/requests#1928, #3099).
    """
    before = sync.truth
    sync.sent = False
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(post(inputs, sync)), daemon=True
    )
    thread.start()
    thread.join(max(0, deadline - time.monotonic()))
    if thread.is_alive():
        return None
    (outcome,) = outcomes
    if outcome.exit_code == 0:
        sync.truth = STARTED
    elif outcome.refused:
        sync.truth = before  # this try has changed nothing
    return outcome


def post(inputs: Inputs, sync: Sync) -> Outcome:
    """Make the call to the API; return what came of it."""
    # As bytes, since requests encodes text in Latin-1.
    credentials = os.fsencode(inputs.api_key), os.fsencode(inputs.api_secret)
    body = b""
    try:
        response = requests.post(
            URL.format(connector_id=inputs.connector_id),
            data=sync,
            auth=HTTPBasicAuth(*credentials),
            headers=HEADERS,
            timeout=(CONNECT_SECONDS, None),  # try_once() bounds the rest
            allow_redirects=False,
            stream=True,
        )
        # Small pieces, since urllib3 before 2.6 decompresses each as a whole.
        for piece in response.iter_content(1024):
            body += piece
            if len(body) > RESPONSE_BYTES:
                break
    except Exception as error:  # noqa: BLE001 - many libraries can raise it
        return broken(error, sync.sent)
    return judge(response.status_code, response.headers, body)


def judge(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Return what an answer means."""
    text = body.decode(errors="replace")
    retry = status in RETRIED
    asked_for = headers.get("Retry-After", "").strip()
    retry_after = float(asked_for) if asked_for.isdecimal() else 0

    answer = fivetran_answer(status, body)
    if answer is None:
        page = hide(" ".join(text.split()))[:100] or "nothing"
        reason = f"HTTP {status}, not an answer of Fivetran's API; it begins: {page}"
        advice = "Look for a proxy, a firewall or a sign-in page in between."
        if status >= 500:
            advice = f"See status.fivetran.com. {advice}"
        stored = {
            "code": "InvalidResponse",
            "message": reason,
            "body": hide(text)[:4096],
        }
        outcome = Outcome(249, reason, advice, json.dumps(stored))
        return outcome._replace(retry=retry, retry_after=retry_after)

    reason = hide(f"HTTP {status}, {answer['code']}: {answer.get('message')}")[:400]
    if "X-Request-Id" in headers:
        reason += hide(f" (request ID {headers['X-Request-Id']})")[:100]
    if 200 <= status < 300 and answer["code"] == "Success":
        return Outcome(0, reason, response=text)
    exit_code, advice = 249, "See status.fivetran.com, then run this again."
    refused = 400 <= status < 500
    if refused:
        other = (201, "Fix what it names, or get a newer version of this script.")
        exit_code, advice = REFUSALS.get(status, other)
    return Outcome(exit_code, reason, advice, text, refused, retry, retry_after)


def fivetran_answer(status: int, body: bytes) -> dict[str, Any] | None:
    """Return an answer of Fivetran's: a JSON object with a code, and no redirect."""
    if 300 <= status < 400 or len(body) > RESPONSE_BYTES:
        return None
    with suppress(ValueError, RecursionError):
        answer = json.loads(body.decode())
        if isinstance(answer, dict) and isinstance(answer.get("code"), str):
            return answer
    return None


def broken(error: Exception, sent: bool) -> Outcome:
    """Return what came of a try that an error has ended."""
    cause: BaseException = error  # the innermost has the plainest words
    while cause.__context__ and (cause.__cause__ or not cause.__suppress_context__):
        cause = cause.__context__
    # Other errors than OSError may quote what was sent, or the proxy's URL.
    words = hide(str(cause))[:1000] if isinstance(cause, OSError) else ""
    words = re.sub("//.*@", "//***@", words) or type(cause).__name__
    reason = no_answer(sent, words)
    if sent:
        advice = "Run this again; at worst, that restarts the sync."
        return Outcome(249, reason, advice, retry=True)
    if isinstance(cause, ssl.SSLCertVerificationError):
        advice = "Check REQUESTS_CA_BUNDLE and the clock of this machine."
        return Outcome(1, reason, advice)
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        advice = "Check the network, and HTTPS_PROXY if it needs a proxy."
        return Outcome(249, reason, advice, retry=True)
    return Outcome(1, reason, "Check HTTPS_PROXY, ALL_PROXY and REQUESTS_CA_BUNDLE.")


def no_answer(sent: bool, cause: str) -> str:
    """Return the reason of a try without an answer."""
    missing = "complete answer from" if sent else "connection to"
    proxy = select_proxy(URL, get_environ_proxies(URL))
    through = ", through the proxy in HTTPS_PROXY or ALL_PROXY" if proxy else ""
    return f"no {missing} {HOST}{through}: {hide(cause)[:300]}"


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file, so that whoever reads it finds the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def hide(text: str) -> str:
    """Return a text without the secrets. All that is shown or stored goes through here."""
    for secret in SECRETS:
        if len(secret) > 5:  # else it is part of common words
            text = text.replace(secret, "***")
    return text


def say(inputs: Inputs, text: str, stream: TextIO | None = None) -> None:
    """Print a line with the UTC time, unless the stream is closed or full."""
    now = datetime.now(timezone.utc)
    line = f"{now:%Y-%m-%dT%H:%M:%SZ} Connector {inputs.connector_id}: {hide(text)}"
    # In ASCII, whatever the text holds, and in one piece: other runs may share the stream.
    printable = line.encode("unicode_escape").decode()
    with suppress(OSError):
        print(f"{printable}\n", end="", file=stream, flush=True)


if __name__ == "__main__":
    # At once: an abandoned try may hang for ever.
    os._exit(main())
