#!/usr/bin/env python3
"""Force a Fivetran connector to sync now; a sync that is running is restarted.

The script does not wait for the sync to finish. It tries again after a temporary fault.
If a request starts a sync but its answer is lost, the next try restarts that sync.

To run it in a shell, set FIVETRAN_API_KEY and FIVETRAN_API_SECRET in the environment,
and give the ID of your connector:
  .venv/bin/python fivetran_execute_sync.py --connector-id speak_inexpensive

To run it in cron, put these lines into ~/.fivetran, a file that only you can read:
  FIVETRAN_API_KEY=...
  FIVETRAN_API_SECRET=...
  FIVETRAN_CONNECTOR_ID=...
and this line into the crontab. It logs everything, and cron mails failures (stderr):
  15 3 * * * (cd ~/fivetran-execute-sync && set -a && . ~/.fivetran && .venv/bin/python fivetran_execute_sync.py) 2>&1 >>~/fivetran.log | tee -a ~/fivetran.log

There are --api-key and --api-secret, too, but other users can see arguments in ps.
HTTPS_PROXY, ALL_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are used if they are set.

Two files, named as in Shipyard (a workflow service), are written in the folder that
SHIPYARD_ARTIFACTS_DIRECTORY names, or in ./shipyard-artifacts:
  fivetran-blueprints/responses/sync_{connector_id}_response.json
    Fivetran's response, or a note that says why there is none.
  fivetran-blueprints/variables/force_sync.pickle or {SHIPYARD_LOG_ID}_force_sync.pickle
    A tuple: the connector ID, and the end time of the last run that started, or may
    have started, a sync.

Exit codes (those from 200 up are Shipyard's):
  0    the sync was started, and the files were written
  1    a file cannot be written (even if the sync was started), a network setting
       is wrong, or the requests library is missing
  2    an input is missing or malformed
  130  ended by Ctrl-C (SIGINT)
  143  ended by SIGTERM
  200  Fivetran refused the API key, secret or permission (HTTP 401, 403)
  201  Fivetran refused for another reason (HTTP 4xx not listed here)
  203  Fivetran reported a conflict (HTTP 409)
  204  Fivetran does not know the connector (HTTP 404)
  249  rate limit (HTTP 429), outage, timeout or no usable answer: try again later
"""

import argparse
import base64
import json
import os
import pickle
import re
import signal
import ssl
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TextIO

warnings.simplefilter("ignore")  # cron would mail libraries' warnings about versions
try:
    import requests
    from requests.auth import HTTPBasicAuth
except ImportError as error:
    sys.exit(
        f"The sync was not started. {sys.executable} cannot import requests: {error}. "
        "Use .venv/bin/python, set up as in the README."
    )

NAME_AND_VERSION = "fivetran-execute-sync/2.0.0"

# Fivetran now calls a connector a connection; the ID is the same.
# https://fivetran.com/docs/developer-resources/rest-api/api-reference/connections/sync-connection
HOST = "api.fivetran.com"
BODY = b'{"force": true}'
HEADERS = {
    "Accept": "application/json;version=2",
    "Content-Type": "application/json",
    "User-Agent": NAME_AND_VERSION,
}
CONNECT_TIMEOUT_SECONDS = 10
WAITS_SECONDS = (1, 4, 15, 30)  # between tries, unless there is a Retry-After
MAX_RESPONSE_BYTES = 64 * 1024  # Fivetran sends about 150; a proxy may send any number
NO_RESPONSE_YET = b'{"code": "NoResponse", "message": "No answer has come yet"}'

STARTED = "The sync was started."
MAYBE_STARTED = "The sync may have been started."
NOT_STARTED = "The sync was not started."

EXIT_LOCAL_PROBLEM = 1
EXIT_TRY_AGAIN = 249

# Fivetran's refusals: HTTP status, our exit code, our advice.
# https://fivetran.com/docs/rest-api/getting-started/api-response-codes
REFUSALS = {
    401: (200, "Check the API key and secret: they may be outdated or swapped."),
    403: (200, "Give the API key permission to sync this connector."),
    404: (204, "Check the connector ID, and look for a newer version of this script."),
    409: (203, "Check in Fivetran what the connector is doing."),
    429: (EXIT_TRY_AGAIN, "The account has reached a limit: run this again later."),
}
OTHER_4XX = (201, "Do what Fivetran says, or look for a newer version of this script.")


class Inputs(NamedTuple):
    """The checked inputs, and what is derived from them."""

    connector_id: str
    auth: HTTPBasicAuth
    timeout: float  # seconds
    response_file: Path
    record_file: Path
    secrets: Sequence[str]  # what must not be shown


class Outcome(NamedTuple):
    """How a try, or the run, ended."""

    exit_code: int
    reason: str  # a sentence without its full stop
    advice: str = ""
    response_text: str = ""  # the JSON to store
    retry_after: float = 0  # seconds
    refused: bool = False  # Fivetran refused, so this try started no sync


class RequestBody:
    """The body of the request. It counts the requests that may have started a sync.

    requests streams an iterable object like this one, and iterates only after it has
    sent the headers. Before that, Fivetran cannot start a sync.
    """

    def __init__(self) -> None:
        self.possible_starts = 0

    def __len__(self) -> int:
        return len(BODY)

    def __iter__(self) -> Iterator[bytes]:
        self.possible_starts += 1
        yield BODY


def main() -> int:
    """Force a sync, write the files, print the outcome; return the exit code."""
    inputs = read_inputs()
    # Replace an earlier run's response, so that nobody mistakes it for this one's.
    problem = write_files({inputs.response_file: NO_RESPONSE_YET})
    if problem:
        say(inputs, f"{NOT_STARTED} {problem}", sys.stderr)
        return EXIT_LOCAL_PROBLEM

    body = RequestBody()
    set_up_signals_and_timeout(inputs, body)
    say(inputs, f"Forcing a sync. The response goes to {inputs.response_file}.")
    outcome = try_repeatedly(inputs, body)
    return finish(inputs, body, outcome)


def read_inputs() -> Inputs:
    """Return the inputs; exit with code 2 if one is missing or wrong."""
    parser = argument_parser()
    arguments, unknown = parser.parse_known_args()
    if unknown:
        parser.error("unrecognized argument (hidden: may be a secret); see usage above")
    api_key = arguments.api_key.strip()
    api_secret = arguments.api_secret.strip()
    connector_id = arguments.connector_id.strip()
    required = {
        "--api-key or FIVETRAN_API_KEY": api_key,
        "--api-secret or FIVETRAN_API_SECRET": api_secret,
        "--connector-id or FIVETRAN_CONNECTOR_ID": connector_id,
    }
    missing = [name for name, value in required.items() if not value]
    if missing:
        parser.error(f"missing {', '.join(missing)}")
    if not 0 < arguments.timeout <= 86400:
        parser.error("--timeout must be above 0 and at most 86400 seconds")
    if connector_id in (api_key, api_secret):
        parser.error("the connector ID is the same as the API key or secret")

    secrets = list_secrets(api_key, api_secret)
    log_id = os.environ.get("SHIPYARD_LOG_ID", "").strip()
    check_id(parser, "connector ID", connector_id, secrets)
    check_id(parser, "SHIPYARD_LOG_ID", log_id, secrets)

    folder = os.environ.get("SHIPYARD_ARTIFACTS_DIRECTORY", "").strip()
    artifacts = Path(folder or "shipyard-artifacts", "fivetran-blueprints").absolute()
    prefix = f"{log_id}_" if log_id else ""
    return Inputs(
        connector_id=connector_id,
        # As bytes: requests encodes text in Latin-1, which fails on a curly quote.
        auth=HTTPBasicAuth(os.fsencode(api_key), os.fsencode(api_secret)),
        timeout=arguments.timeout,
        response_file=artifacts / "responses" / f"sync_{connector_id}_response.json",
        record_file=artifacts / "variables" / f"{prefix}force_sync.pickle",
        secrets=secrets,
    )


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser; required inputs default to environment variables."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get("FIVETRAN_API_KEY", ""),
        help="default: $FIVETRAN_API_KEY",
    )
    parser.add_argument(
        "--api-secret",
        default=os.environ.get("FIVETRAN_API_SECRET", ""),
        help="default: $FIVETRAN_API_SECRET",
    )
    parser.add_argument(
        "--connector-id",
        default=os.environ.get("FIVETRAN_CONNECTOR_ID", ""),
        help="default: $FIVETRAN_CONNECTOR_ID",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=120,
        help="limit for all tries and waits together; default: %(default)s",
    )
    parser.add_argument("--version", action="version", version=NAME_AND_VERSION)
    return parser


def check_id(
    parser: argparse.ArgumentParser, name: str, text: str, secrets: Sequence[str]
) -> None:
    """Exit with code 2 if the text cannot be an ID."""
    if not re.fullmatch("[A-Za-z0-9_-]*", text):
        shown = hide(text, secrets)
        parser.error(f"invalid {name} {shown!r}: use letters, digits, _ and -")


def set_up_signals_and_timeout(inputs: Inputs, body: RequestBody) -> None:
    """Let Ctrl-C, SIGTERM and the timeout finish the run, wherever it is.

    They interrupt every wait except a name lookup, which the system limits.
    """

    def finish_early(number: int, _frame: object) -> None:
        if number == signal.SIGALRM:
            reason = f"Timed out after {inputs.timeout:g} s"
            advice = "Check the network and status.fivetran.com."
            outcome = Outcome(EXIT_TRY_AGAIN, reason, advice)
        else:
            reason = f"Ended by {signal.Signals(number).name}"
            outcome = Outcome(128 + number, reason)
        # Failures go to stderr, since a print to stdout may be under way.
        os._exit(finish(inputs, body, outcome))

    for number in (signal.SIGINT, signal.SIGTERM):
        # What the parent process ignores stays ignored, as for a background job.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, finish_early)
    signal.signal(signal.SIGALRM, finish_early)
    # Repeat the alarm: if one comes just before a wait, only the next can interrupt it.
    signal.setitimer(signal.ITIMER_REAL, inputs.timeout, 1)


def try_repeatedly(inputs: Inputs, body: RequestBody) -> Outcome:
    """Try until another try would be useless or too late; return the last outcome."""
    for usual_wait in WAITS_SECONDS:
        outcome = try_once(inputs, body)
        wait = outcome.retry_after or usual_wait
        seconds_left, _ = signal.getitimer(signal.ITIMER_REAL)
        if outcome.exit_code != EXIT_TRY_AGAIN or wait >= seconds_left:
            return outcome
        say(inputs, f"{outcome.reason}. {outcome.advice} Trying again in {wait:g} s.")
        time.sleep(wait)
    return try_once(inputs, body)


def try_once(inputs: Inputs, body: RequestBody) -> Outcome:
    """Send the request; return the outcome, even if sending fails."""
    possible_starts_before = body.possible_starts
    try:
        response = requests.post(
            f"https://{HOST}/v1/connections/{inputs.connector_id}/sync",
            data=body,
            auth=inputs.auth,
            headers=HEADERS,
            # Without a read timeout, OpenSSL delays signals.
            timeout=(CONNECT_TIMEOUT_SECONDS, inputs.timeout),
            allow_redirects=False,
            stream=True,
        )
        content = response.raw.read(MAX_RESPONSE_BYTES, decode_content=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes an outcome
        return judge_error(error, body.possible_starts > possible_starts_before)
    text = hide(content.decode(errors="replace"), inputs.secrets)
    outcome = judge_answer(response.status_code, response.headers, text)
    if outcome.refused:
        body.possible_starts = possible_starts_before
    return outcome


def judge_answer(status: int, headers: Mapping[str, str], text: str) -> Outcome:
    """Return the outcome of a try that was answered."""
    header = headers.get("Retry-After", "")
    retry_after = float(header) if header.isdecimal() else 0  # dates are ignored
    answer = fivetran_answer(text)
    if not answer:
        reason = shorten(f"HTTP {status}, not an answer from Fivetran's API: {text}")
        advice = "Look for a proxy, firewall or sign-in page; see status.fivetran.com."
        stored = {"code": "InvalidResponse", "message": reason, "body": text}
        return Outcome(EXIT_TRY_AGAIN, reason, advice, json.dumps(stored), retry_after)

    reason = shorten(f"HTTP {status}, {answer['code']}: {answer.get('message') or ''}")
    for name in ("Retry-After", "X-Request-Id"):
        if name in headers:
            reason += f" ({name}: {shorten(headers[name])})"

    if 200 <= status < 300 and answer["code"] == "Success":
        return Outcome(0, reason, response_text=text)
    if 400 <= status < 500:
        exit_code, advice = REFUSALS.get(status, OTHER_4XX)
        return Outcome(exit_code, reason, advice, text, retry_after, refused=True)
    # 5xx, 3xx, or 2xx without Success.
    advice = "Check status.fivetran.com."
    return Outcome(EXIT_TRY_AGAIN, reason, advice, text, retry_after)


def fivetran_answer(text: str) -> dict[str, Any]:
    """Return the answer if it looks like one from Fivetran, else an empty dict."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return {}
    if isinstance(answer, dict) and isinstance(answer.get("code"), str):
        return answer
    return {}


def judge_error(error: Exception, sent: bool) -> Outcome:
    """Return the outcome of a try without a complete answer."""
    cause = first_cause(error)
    # Only an OSError's text is shown: others may quote a proxy's URL with its password.
    # requests' own errors are OSErrors, too, but do not quote a proxy's URL.
    detail = f", {cause}" if isinstance(cause, OSError) else ""
    if sent:
        reason = f"No complete answer from {HOST}: {type(cause).__name__}{detail}"
        return Outcome(EXIT_TRY_AGAIN, shorten(reason), "Check status.fivetran.com.")
    # requests' error says whether the proxy, TLS or a timeout was the problem.
    reason = shorten(f"No connection to {HOST}: {type(error).__name__}{detail}")
    if is_permanent(error, cause):
        advice = "Check HTTPS_PROXY, ALL_PROXY, REQUESTS_CA_BUNDLE and the clock."
        return Outcome(EXIT_LOCAL_PROBLEM, reason, advice)
    advice = "Check the network, and HTTPS_PROXY if it needs a proxy."
    return Outcome(EXIT_TRY_AGAIN, reason, advice)


def is_permanent(error: Exception, cause: BaseException) -> bool:
    """Return whether another try would fail to connect for the same reason."""
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return False  # the connection was cut during the TLS handshake
    tls_errors = (requests.exceptions.SSLError, ssl.SSLError)
    if isinstance(error, tls_errors) or isinstance(cause, tls_errors):
        return True
    if "Tunnel connection failed: 4" in str(cause):  # a 4xx from a proxy
        return True  # sending a wrong password again might lock the account
    # Anything but a network error is most likely a setting that requests cannot use.
    return not isinstance(error, (requests.ConnectionError, requests.Timeout))


def first_cause(error: BaseException) -> BaseException:
    """Return the earliest of the errors that led to this one."""
    from_none = error.__suppress_context__ and not error.__cause__
    if from_none or not error.__context__:
        return error
    return first_cause(error.__context__)


def finish(inputs: Inputs, body: RequestBody, outcome: Outcome) -> int:
    """Write the files, print the outcome; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)  # the outcome is final

    restart = ""
    if outcome.exit_code == 0:
        verdict = STARTED
    elif body.possible_starts:
        verdict = MAYBE_STARTED
        restart = "If the connector is syncing, running this again restarts the sync."
    else:
        verdict = NOT_STARTED

    no_response = json.dumps({"code": "NoResponse", "message": outcome.reason})
    response_text = outcome.response_text or no_response
    files = {inputs.response_file: response_text.encode()}
    if verdict != NOT_STARTED:
        record = (inputs.connector_id, datetime.now(timezone.utc))
        files[inputs.record_file] = pickle.dumps(record, protocol=3)  # for any Python 3
    problem = write_files(files)

    exit_code = EXIT_LOCAL_PROBLEM if problem else outcome.exit_code
    sentences = (verdict, f"{outcome.reason}.", outcome.advice, problem, restart)
    stream = sys.stderr if exit_code else sys.stdout
    say(inputs, " ".join(filter(None, sentences)), stream)
    return exit_code


def write_files(contents: Mapping[Path, bytes]) -> str:
    """Write the files; return an error message, or "" if all were written."""
    problems = []
    for path, content in contents.items():
        try:
            replace_file(path, content)
        except OSError as error:
            problems.append(f"{path} cannot be written: {error.strerror}.")
    if problems:
        advice = "Check disk space, permissions and SHIPYARD_ARTIFACTS_DIRECTORY."
        problems.append(advice)
    return " ".join(problems)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers find either the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def list_secrets(api_key: str, api_secret: str) -> list[str]:
    """Return the texts that must not be shown."""
    # The form in the Authorization header, without the "=" that an echo may escape.
    encoded = base64.b64encode(os.fsencode(f"{api_key}:{api_secret}")).decode()
    return [encoded.rstrip("="), api_secret, api_key]


def hide(text: str, secrets: Sequence[str]) -> str:
    """Return the text with *** in place of each secret."""
    for secret in secrets:
        if len(secret) >= 6:  # a shorter one may be part of a word
            text = text.replace(secret, "***")
    return text


def shorten(text: str) -> str:
    """Return the first 400 characters as one line, without a final stop or colon."""
    return " ".join(text.split())[:400].rstrip(" .:")


def say(inputs: Inputs, text: str, stream: TextIO = sys.stdout) -> None:
    """Print the text as one line, after the UTC time and the connector ID."""
    now = datetime.now(timezone.utc)
    # No answer may break the line or control the terminal.
    text = hide(text, inputs.secrets)
    printable = "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)
    line = f"{now:%Y-%m-%dT%H:%M:%SZ} Connector {inputs.connector_id}: {printable}"
    with suppress(OSError):  # a closed pipe or a full disk is no reason to stop
        # In one piece, even with "python -u": other runs may write to the same stream.
        print(f"{line}\n", end="", file=stream, flush=True)


if __name__ == "__main__":
    # sys.exit() would flush stdout again, and exit with 120 if that failed.
    os._exit(main())
