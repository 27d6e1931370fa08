#!/usr/bin/env python3
# For "uv run" (PEP 723):
# /// script
# requires-python = ">=3.9"
# dependencies = ["requests>=2.32.4,<3"]
# ///
"""Force a sync of a Fivetran connector, without waiting for it to finish.

If a sync is already running, Fivetran stops it and starts a new one. The response and a
record of the start are stored in the files that Shipyard's Execute Sync blueprint uses;
Shipyard is not needed.

in a shell, with FIVETRAN_API_KEY and FIVETRAN_API_SECRET in the environment:
  .venv/bin/python fivetran_execute_sync.py --connector-id speak_inexpensive

in cron, with those two and FIVETRAN_CONNECTOR_ID exported by ~/.fivetran (mode 600):
  15 * * * * (cd ~/fivetran-execute-sync && . ~/.fivetran && .venv/bin/python fivetran_execute_sync.py) >> ~/fivetran.log 2>&1 || tail -n 1 ~/fivetran.log
Everything is logged. If a run fails, cron mails the last line of the log.
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
from http import HTTPStatus
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TextIO
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

gc.disable()  # a run this short needs no collection: saves about 5 % of its CPU time
warnings.simplefilter("ignore")  # libraries' warnings would clutter the log
try:
    import requests
    from requests.auth import HTTPBasicAuth
except Exception as error:  # noqa: BLE001 - a damaged installation can raise anything
    problem = f"requests cannot be imported by {sys.executable}: {error}."
    if isinstance(error, ModuleNotFoundError):
        problem += " Use .venv/bin/python, set up as in the README."
    sys.exit(f"The sync was not started. {problem}")

USER_AGENT = "fivetran-execute-sync/1.0.0"

# The request. Fivetran now calls a connector a connection.
# fivetran.com/docs/developer-resources/rest-api/api-reference/connections/sync-connection
HOST = "api.fivetran.com"
BODY = b'{"force": true}'  # a running sync is stopped, not left alone
HEADERS = {
    "Accept": "application/json;version=2",
    "Content-Type": "application/json",
    "User-Agent": USER_AGENT,
}

CONNECT_SECONDS = 10  # for each IP address: urllib3 tries one after another
# Waits between tries, plus or minus 25 %. A Retry-After is used instead, as it is.
WAITS_SECONDS = (1, 2, 4)
SHORTEST_TRY_SECONDS = 5  # with less time left, there is no point in another try
MAX_RESPONSE_BYTES = 64 * 1024  # a real response has about 150 bytes

# What is known about the sync: the first sentence of the last line that a run prints.
STARTED = "The sync was started."
MAYBE_STARTED = "The sync may have been started."
NOT_STARTED = "The sync was not started."

# Exit codes from 200 to 249 are those of Shipyard's blueprints
# (github.com/shipyardapp/shipyard-blueprints). Before it exits with TRY_AGAIN, the
# script itself tries again, up to three times, if there is time. That is safe: at
# worst, another try restarts the sync.
LOCAL_FAULT = 1
TRY_AGAIN = 249

# The exit code and the advice for each way in which Fivetran refuses a sync.
# fivetran.com/docs/rest-api/getting-started/api-response-codes
REFUSALS: dict[int, tuple[int, str]] = {
    HTTPStatus.UNAUTHORIZED: (200, "Check the API key and secret."),
    HTTPStatus.FORBIDDEN: (200, "Give the API key permission to sync this connector."),
    HTTPStatus.NOT_FOUND: (204, "Check the connector ID on the connector's Setup tab."),
    # Not expected, as "force" stops a running sync, but Fivetran documents it.
    HTTPStatus.CONFLICT: (203, "Run this again when the current sync has ended."),
    HTTPStatus.TOO_MANY_REQUESTS: (
        TRY_AGAIN,
        "Run this again later: the account has reached a request limit.",
    ),
}
OTHER_4XX = (201, "Fix what the message names, or get a newer version of this script.")

EPILOG = """
Other users can see arguments in ps; the environment is safer for the key and secret.
HTTPS_PROXY, ALL_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are used if they are set.

artifacts, in the folder SHIPYARD_ARTIFACTS_DIRECTORY (default: shipyard-artifacts):
  fivetran-blueprints/responses/sync_{connector_id}_response.json
  fivetran-blueprints/variables/force_sync.pickle
    (with SHIPYARD_LOG_ID set, {SHIPYARD_LOG_ID}_force_sync.pickle)

exit codes:
  0    the sync was started
  1    an artifact cannot be written (even if the sync was started), or a network
       setting or the requests library is at fault
  2    an input is missing or wrong
  130  ended by Ctrl-C (SIGINT)
  143  ended by SIGTERM
  200  API key, API secret or permission refused (HTTP 401, 403)
  201  refused for another reason (other HTTP 4xx)
  203  conflict with a running sync (HTTP 409)
  204  unknown connector (HTTP 404)
  249  rate limit, outage, or no usable answer from Fivetran: try again later
"""


class Inputs(NamedTuple):
    """The checked inputs, and what follows from them."""

    auth: HTTPBasicAuth
    connector_id: str
    timeout: float  # seconds
    response_file: Path
    record_file: Path
    secrets: list[str]  # what must not be shown


class Outcome(NamedTuple):
    """How a try, or the whole run, ended."""

    exit_code: int
    sync: str  # STARTED, MAYBE_STARTED or NOT_STARTED
    reason: str  # without a full stop
    advice: str = ""  # full sentences
    to_store: str = ""  # the response as JSON; if empty, store() makes one
    retry_after: float = 0  # seconds; 0 for the usual wait


# A placeholder, never the last outcome. main() stores it before the request, so that a
# run that is killed leaves no older response; main() and store() test for it with "is".
NO_ANSWER_YET = Outcome(TRY_AGAIN, NOT_STARTED, "No answer has come yet")


class RequestBody:
    """The body of the request, which notes when it is about to be sent.

    urllib3 (1.26 and 2) asks for the body's pieces only after it has sent the headers.
    Until then, Fivetran cannot have started anything: it needs the whole request.
    """

    def __init__(self) -> None:
        # Guards the flags. force_sync() acquires it before it reads them, and never
        # releases it: from then on, the thread of the tries is blocked before it can
        # change a flag or begin to send.
        self.lock = threading.Lock()
        self.sent = False  # or about to be, by the current try
        self.maybe_started = False  # by a try that has ended

    def __len__(self) -> int:
        return len(BODY)  # requests makes it the Content-Length

    def __iter__(self) -> Iterator[bytes]:
        # A generator: nothing runs until the first piece is asked for.
        with self.lock:
            self.sent = True
        yield BODY  # after releasing the lock, because sending can hang


def main() -> int:
    """Force a sync, store the artifacts, print the outcome; return the exit code."""
    inputs = read_inputs(sys.argv[1:], os.environ)
    # A signal and the tries each put an outcome here. force_sync() takes the first; a
    # later one is ignored.
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    listen_for_signals(outcomes)

    outcome = store(inputs, NO_ANSWER_YET)
    # Another outcome means that the artifacts cannot be written. Then nothing is sent,
    # because whoever relies on them would not learn of the sync.
    if outcome is NO_ANSWER_YET:
        say(inputs, f"Forcing a sync. The response goes to {inputs.response_file}")
        outcome = store(inputs, force_sync(inputs, outcomes))

    verdict = f"{outcome.sync} {outcome.reason}. {outcome.advice}".rstrip()
    say(inputs, verdict, sys.stderr if outcome.exit_code else sys.stdout)
    return outcome.exit_code


def read_inputs(arguments: Sequence[str], environment: Mapping[str, str]) -> Inputs:
    """Return the inputs; exit with code 2 if one is missing or wrong."""
    parser = argument_parser()
    # parse_args() would show unknown arguments.
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error("unrecognized argument (not shown, since it may be a secret)")

    def value(variable: str, argument: str = "") -> str:
        return argument.strip() or environment.get(variable, "").strip()

    api_key = value("FIVETRAN_API_KEY", given.api_key)
    api_secret = value("FIVETRAN_API_SECRET", given.api_secret)
    connector_id = value("FIVETRAN_CONNECTOR_ID", given.connector_id)
    log_id = value("SHIPYARD_LOG_ID")
    folder = value("SHIPYARD_ARTIFACTS_DIRECTORY") or "shipyard-artifacts"

    needed = {
        "--api-key or FIVETRAN_API_KEY": api_key,
        "--api-secret or FIVETRAN_API_SECRET": api_secret,
        "--connector-id or FIVETRAN_CONNECTOR_ID": connector_id,
    }
    missing = [name for name, text in needed.items() if not text]
    if missing:
        parser.error(f"missing {', '.join(missing)}")
    secrets = list_secrets(api_key, api_secret)
    check_id(parser, "connector ID", connector_id, secrets)
    check_id(parser, "SHIPYARD_LOG_ID", log_id, secrets)

    artifacts = Path(folder, "fivetran-blueprints")
    prefix = f"{log_id}_" if log_id else ""
    return Inputs(
        # As bytes: requests would encode text in Latin-1, which lacks some letters.
        auth=HTTPBasicAuth(os.fsencode(api_key), os.fsencode(api_secret)),
        connector_id=connector_id,
        timeout=given.timeout,
        response_file=artifacts / "responses" / f"sync_{connector_id}_response.json",
        record_file=artifacts / "variables" / f"{prefix}force_sync.pickle",
        secrets=secrets,
    )


def check_id(
    parser: argparse.ArgumentParser, name: str, text: str, secrets: Sequence[str]
) -> None:
    """Exit with code 2 unless the text is empty or can be an ID."""
    # A secret pasted by mistake becomes ***, which is not a valid ID.
    shown = hide(text, secrets)
    if not re.fullmatch("[A-Za-z0-9_-]*", shown):
        parser.error(f"invalid {name} {shown!r}: use letters, digits, _ and -")


def list_secrets(api_key: str, api_secret: str) -> list[str]:
    """Return what must not be shown, long ones first as they may contain short ones."""
    # As in the Authorization header:
    encoded = base64.b64encode(os.fsencode(f"{api_key}:{api_secret}")).decode()
    return sorted((api_key, api_secret, encoded), key=len, reverse=True)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser; text arguments that are not given will be empty."""
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
        type=timeout_seconds,
        default=120,
        help="limit for all tries and the waits between them; default: %(default)s",
    )
    parser.add_argument("--version", action="version", version=USER_AGENT)
    return parser


def timeout_seconds(text: str) -> float:
    """Return the value of --timeout; do not quote a wrong one: it may be a secret."""
    with suppress(ValueError):
        if 0 < float(text) < threading.TIMEOUT_MAX:  # what SimpleQueue.get() accepts
            return float(text)
    raise argparse.ArgumentTypeError("not a usable number of seconds")


def listen_for_signals(outcomes: SimpleQueue[Outcome]) -> None:
    """Let SIGINT and SIGTERM end the run with an outcome of their own."""
    if not hasattr(signal, "sigwait"):
        return  # on Windows, Ctrl-C ends the script as it ends any other
    # What the parent process ignores stays ignored, as for a background job.
    both = (signal.SIGINT, signal.SIGTERM)
    numbers = [number for number in both if signal.getsignal(number) != signal.SIG_IGN]

    def listen() -> None:
        number = signal.sigwait(numbers)
        reason = f"Ended by {signal.Signals(number).name}"
        advice = "Run this again if you still want the sync."
        # If a request was sent, force_sync() makes this MAYBE_STARTED.
        outcomes.put(Outcome(128 + number, NOT_STARTED, reason, advice))

    # Threads started from here on inherit the blocked signals, so that only sigwait()
    # gets them. A handler would not do: it would not end the wait of outcomes.get() if
    # the signal came just before that wait began.
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    if numbers:
        threading.Thread(target=listen, daemon=True).start()


def force_sync(inputs: Inputs, outcomes: SimpleQueue[Outcome]) -> Outcome:
    """Return the first outcome: that of the tries, of a signal or of the timeout.

    The tries are made in a thread that can be left behind, because the timeout of
    requests does not limit a name lookup that hangs, and each byte of an answer that
    trickles in restarts that timeout (psf/requests#1928, #3099).
    """
    body = RequestBody()

    def make_tries() -> None:
        outcomes.put(try_repeatedly(inputs, body))

    threading.Thread(target=make_tries, daemon=True).start()
    outcome: Outcome | None = None
    with suppress(Empty):
        outcome = outcomes.get(timeout=inputs.timeout)
    body.lock.acquire()  # for good: see RequestBody
    if outcome is None:  # judged only now, when body.sent cannot change any more
        error = requests.Timeout(f"timed out after {inputs.timeout:g} s")
        outcome = judge_error(error, body.sent, inputs.secrets)
    # A signal knows nothing of any try; a refused try knows nothing of earlier tries.
    if outcome.sync == NOT_STARTED and (body.sent or body.maybe_started):
        outcome = outcome._replace(sync=MAYBE_STARTED)
    return outcome


def try_repeatedly(inputs: Inputs, body: RequestBody) -> Outcome:
    """Call the API, and again after each wait if that may help; return the outcome."""
    deadline = time.monotonic() + inputs.timeout
    for usual_wait in WAITS_SECONDS:
        outcome = try_once(inputs, body)
        if outcome.exit_code != TRY_AGAIN:
            return outcome
        wait = outcome.retry_after or usual_wait * random.uniform(0.75, 1.25)
        if time.monotonic() + wait + SHORTEST_TRY_SECONDS > deadline:
            too_late = f"too little time is left to try again in {wait:.1f} s"
            return outcome._replace(reason=f"{outcome.reason}; {too_late}")
        say(inputs, f"{outcome.reason}. Trying again in {wait:.1f} s")
        time.sleep(wait)
    return try_once(inputs, body)  # after the last wait


def try_once(inputs: Inputs, body: RequestBody) -> Outcome:
    """Call the API once; return the outcome, whatever goes wrong."""
    try:
        response = requests.post(
            f"https://{HOST}/v1/connections/{inputs.connector_id}/sync",
            data=body,
            auth=inputs.auth,
            headers=HEADERS,
            timeout=(CONNECT_SECONDS, None),  # force_sync() limits the rest
            allow_redirects=False,
            stream=True,  # or requests would read an answer of any size
        )
        content = read_beginning(response)
        status, headers = response.status_code, response.headers
        outcome = judge_answer(status, headers, content, inputs.secrets)
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes an outcome
        outcome = judge_error(error, body.sent, inputs.secrets)
    # The try is over. All that matters now is whether it may have started a sync.
    with body.lock:
        body.sent = False
        if outcome.sync != NOT_STARTED:
            body.maybe_started = True
    return outcome


def read_beginning(response: requests.Response) -> bytes:
    """Return the content of a response, up to MAX_RESPONSE_BYTES."""
    content = b""
    # Small pieces, because urllib3 before 2.6 decompresses a piece as a whole, however
    # large that becomes (CVE-2025-66471).
    for piece in response.iter_content(1024):
        content += piece
        if len(content) >= MAX_RESPONSE_BYTES:
            break
    return content[:MAX_RESPONSE_BYTES]


def judge_answer(
    status: int, headers: Mapping[str, str], content: bytes, secrets: Sequence[str]
) -> Outcome:
    """Return the outcome of a try that was answered."""
    text = hide(content.decode(errors="replace"), secrets)
    retry_after = 0.0
    header = headers.get("Retry-After", "").strip()
    if header.isdecimal():  # it may also be a date, which is ignored
        retry_after = min(float(header), threading.TIMEOUT_MAX)  # 9999... would be inf
    answer = fivetran_answer(status, text)
    if answer is None:
        return judge_foreign_answer(status, text, retry_after)

    reason = f"HTTP {status}, {answer['code']}"
    message = answer.get("message")
    if message and isinstance(message, str):
        reason += f": {message}"
    # Hidden again: in the JSON text, an escape may have concealed a secret.
    reason = shorten(hide(reason, secrets), 400)
    request_id = shorten(hide(headers.get("X-Request-Id", ""), secrets), 80)
    if request_id:  # for Fivetran's support
        reason += f" (request ID {request_id})"

    if 200 <= status < 300 and answer["code"] == "Success":
        return Outcome(0, STARTED, reason, to_store=text)
    if 400 <= status < 500:
        exit_code, advice = REFUSALS.get(status, OTHER_4XX)
        return Outcome(exit_code, NOT_STARTED, reason, advice, text, retry_after)
    # An outage, or an unknown code. Fivetran's API may give up with a 500 while the
    # operation goes on:
    # fivetran.com/docs/rest-api/troubleshooting/pause-connector-500-error
    advice = (
        "Check status.fivetran.com, and whether the connector is syncing: "
        "if it is, running this again restarts the sync."
    )
    return Outcome(TRY_AGAIN, MAYBE_STARTED, reason, advice, text, retry_after)


def fivetran_answer(status: int, text: str) -> dict[str, Any] | None:
    """Return the answer if it has Fivetran's form, a JSON object with a code."""
    if not 300 <= status < 400:  # the API does not redirect
        with suppress(ValueError):
            answer = json.loads(text)
            if isinstance(answer, dict) and isinstance(answer.get("code"), str):
                return answer
    return None


def judge_foreign_answer(status: int, text: str, retry_after: float) -> Outcome:
    """Return the outcome of a try that was answered by something other than Fivetran.

    Whatever the status, the request may have reached Fivetran.
    """
    beginning = shorten(text, 100)
    described = f"it begins: {beginning}" if beginning else "it is empty"
    reason = f"HTTP {status}, not an answer from Fivetran's API; {described}"
    advice = "Look for a proxy, a firewall or a sign-in page in the network."
    if status >= 500:
        advice = f"See status.fivetran.com. {advice}"
    stored = {"code": "InvalidResponse", "message": reason, "body": text[:4096]}
    response = json.dumps(stored)
    return Outcome(TRY_AGAIN, MAYBE_STARTED, reason, advice, response, retry_after)


def judge_error(error: Exception, sent: bool, secrets: Sequence[str]) -> Outcome:
    """Return the outcome of a try that an error ended."""
    original = original_error(error)
    description = type(original).__name__
    # Only an OSError is quoted, as network errors and those of requests are: others may
    # reveal what was sent.
    if isinstance(original, OSError) and str(original):
        # The pattern is greedy, as a proxy's user and password may contain / and @.
        description = re.sub("(?s)//.*@", "//***@", hide(str(original), secrets))
    reason = f"No complete answer from {HOST}" if sent else f"No connection to {HOST}"
    # Not getproxies() and proxy_bypass(): on a Mac they may hang in a name lookup, and
    # the main thread calls this, too.
    proxies = getproxies_environment()
    if ("https" in proxies or "all" in proxies) and not proxy_bypass_environment(HOST):
        reason += ", through the proxy in HTTPS_PROXY or ALL_PROXY"
    reason = shorten(f"{reason}: {description}", 400)

    if sent:
        advice = "Run this again; at worst, that restarts the sync."
        return Outcome(TRY_AGAIN, MAYBE_STARTED, reason, advice)
    if is_permanent(error, original):
        advice = "Check HTTPS_PROXY, ALL_PROXY, REQUESTS_CA_BUNDLE and the clock."
        return Outcome(LOCAL_FAULT, NOT_STARTED, reason, advice)
    advice = "Check the network, and HTTPS_PROXY if it needs a proxy."
    return Outcome(TRY_AGAIN, NOT_STARTED, reason, advice)


def original_error(error: BaseException) -> BaseException:
    """Return the error that led to this one, since it has the plainest words."""
    # __context__ leads further than __cause__: the cause of urllib3's MaxRetryError is
    # a new error that has none. With "raise ... from None", urllib3 1.26 hides an error
    # of its own, which is of no interest.
    from_none = error.__suppress_context__ and error.__cause__ is None
    if error.__context__ is None or from_none:
        return error
    return original_error(error.__context__)


def is_permanent(error: Exception, original: BaseException) -> bool:
    """Return whether another try would fail to connect for the same reason."""
    # A connection that is cut during the TLS handshake is a fault of the network.
    if isinstance(original, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return False
    # A certificate that is not trusted, or a CA bundle that cannot be used.
    if isinstance(error, requests.exceptions.SSLError):
        return True
    # If TLS to a proxy fails, only the original error is about TLS.
    if isinstance(original, ssl.SSLError):
        return True
    # A proxy refused with 4xx; only these words of http.client tell. Sending it a wrong
    # password several times might lock the account.
    if str(original).startswith("Tunnel connection failed: 4"):
        return True
    # Anything but a network error is most likely a setting that requests cannot use.
    return not isinstance(error, (requests.ConnectionError, requests.Timeout))


def store(inputs: Inputs, outcome: Outcome) -> Outcome:
    """Store the artifacts; return the outcome, or another one if that fails."""
    record = b""  # if it stays empty, the record file is left as it is
    if outcome.sync != NOT_STARTED:
        # Shipyard's Check Sync Status looks for a sync that ended after the recorded
        # time. By now, after the answer, a sync that had to be stopped has ended.
        # Any Python 3 can load protocol 3.
        now = datetime.now(timezone.utc)
        record = pickle.dumps((inputs.connector_id, now), protocol=3)
    no_response = {"code": "NoResponse", "message": outcome.reason}
    response = (outcome.to_store or json.dumps(no_response)).encode()

    problems = []
    contents = {inputs.record_file: record, inputs.response_file: response}
    for file, content in contents.items():
        try:
            # Done even with nothing to write, so that a folder that cannot be made is
            # noticed before the request.
            file.parent.mkdir(parents=True, exist_ok=True)
            if content:
                replace_file(file, content)
        except OSError as error:
            problems.append(f"{file.name}: {error}")
    if not problems:
        return outcome
    reason = f"An artifact cannot be written: {'; '.join(problems)}"
    if outcome is not NO_ANSWER_YET:  # the placeholder's reason adds nothing
        reason += f" ({outcome.reason})"
    advice = "Free disk space, check permissions, or set SHIPYARD_ARTIFACTS_DIRECTORY."
    return outcome._replace(exit_code=LOCAL_FAULT, reason=reason, advice=advice)


def replace_file(file: Path, content: bytes) -> None:
    """Replace a file, so that a reader finds the old or the new one, never a part."""
    # Not with tempfile, whose files only their owner may read.
    draft = file.with_name(f".{file.name}.{os.urandom(8).hex()}")
    try:
        draft.write_bytes(content)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def hide(text: str, secrets: Sequence[str]) -> str:
    """Return the text with *** in place of each secret."""
    for secret in secrets:
        if len(secret) > 5:  # a shorter one may be part of an ordinary word
            text = text.replace(secret, "***")
    return text


def shorten(text: str, length: int) -> str:
    """Return the beginning of a text, as one line without a final full stop.

    Secrets must be hidden first, because a part of one would not be recognized.
    """
    return " ".join(text.split())[:length].rstrip(". ")


def say(inputs: Inputs, text: str, stream: TextIO | None = None) -> None:
    """Print a line with the UTC time and the connector ID, by default on stdout."""
    now = datetime.now(timezone.utc)
    text = hide(text, inputs.secrets)  # a file's path may contain one
    line = f"{now:%Y-%m-%dT%H:%M:%SZ} Connector {inputs.connector_id}: {text}"
    # No answer can forge a line: backslashes and all but printable ASCII are escaped.
    printable = line.encode("unicode_escape").decode()
    # Other runs may write to the same stream, so the newline is part of the text: with
    # "python -u", print() would write it separately. A closed pipe or a full disk is no
    # reason to stop.
    with suppress(OSError):
        print(f"{printable}\n", end="", file=stream, flush=True)


if __name__ == "__main__":
    # Not sys.exit(): it would flush the streams, as say() has done, and exit with 120
    # if that failed.
    os._exit(main())
