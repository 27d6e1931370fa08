#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["requests>=2.32.4,<3"]
# ///
"""Force a sync of a Fivetran connector, and keep a record of it.

A running sync is stopped and started again. This does not wait for its end.

in a shell, with the API key and the API secret in the environment:
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
import select
import shlex
import signal
import ssl
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = "fivetran-execute-sync/1.0.0"

# fivetran.com/docs/developer-resources/rest-api/api-reference/connections/sync-connection
HOST = "api.fivetran.com"
URL = "https://api.fivetran.com/v1/connections/{connector_id}/sync"
FORCE = b'{"force": true}'
HEADERS = {
    "Accept": "application/json;version=2",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": VERSION,
}

CONNECT_SECONDS = 5  # for each address, and each step of a proxy and of TLS
WAITS_SECONDS = (1, 2, 4)  # before another try, give or take a quarter
RESPONSE_BYTES = 64 * 1024  # at most; Fivetran's answer has 150

# What can be true of the sync.
NOT_STARTED = "was not started"
MAYBE_STARTED = "may have been started"
MAYBE_EARLIER = "may have been started by an earlier try"
STARTED = "was started"

# Refusals: HTTP status, exit code, advice.
# fivetran.com/docs/rest-api/getting-started/api-response-codes
REFUSALS = {
    401: (200, "Check FIVETRAN_API_KEY and FIVETRAN_API_SECRET"),
    403: (200, "Give the API key a role that may sync this connection"),
    404: (204, "Take the connector ID from the Setup tab of the connection"),
    409: (203, "Wait until the sync under way has ended, then run this again"),
    429: (249, "Run this later: the account's requests of this hour are used up"),
}

EPILOG = """
HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are honoured.

artifacts, in the folder SHIPYARD_ARTIFACTS_DIRECTORY or else shipyard-artifacts:
  fivetran-blueprints/responses/sync_{connector_id}_response.json
  fivetran-blueprints/variables/[{SHIPYARD_LOG_ID}_]force_sync.pickle

exit codes:
  0    Fivetran accepted the sync
  1    it cannot be done here: the last line says why
  2    an input is missing or wrong, or requests is not installed
  130  Ctrl-C
  143  SIGTERM
  201  Fivetran refused for a reason that is not listed below
  249  no answer, or one that makes no sense: another try may help
"""

SECRETS: set[str] = set()  # what hide() hides


class Inputs(NamedTuple):
    """What the user wants, checked."""

    api_key: str
    api_secret: str
    connector_id: str
    timeout: float  # seconds
    log_id: str  # of the Shipyard vessel; empty elsewhere
    artifacts: Path


class Attempt(NamedTuple):
    """The result of one try."""

    exit_code: int
    reason: str
    advice: str
    response: str  # JSON, to be kept
    truth: str  # about the sync, as far as this try alone can tell
    retry_after: float | None = None  # seconds to wait; 0: the usual; None: no retry


class Failure(Exception):
    """The run ends here, and why."""

    def __init__(self, exit_code: int, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason
        self.advice = advice


class Events:
    """What the main thread waits for: the worker's attempt, Ctrl-C or SIGTERM.

    A pipe wakes it up. The queues of Python are no substitute: queue.Queue may not be
    used by a signal handler, and SimpleQueue.get(timeout=0) hung with Python 3.9.
    """

    def __init__(self) -> None:
        self._events: deque[Attempt | Exception] = deque()
        self._reader, self._writer = os.pipe()

    def put(self, event: Attempt | Exception) -> None:
        """Add an event; signal handlers may do so, too."""
        self._events.append(event)
        os.write(self._writer, b".")

    def wait(self, seconds: float) -> Attempt | None:
        """Return the attempt that comes within this time, None if there is none.

        Raises Failure on Ctrl-C and SIGTERM, and what the worker raised.
        """
        timeout = max(0, seconds)
        if not select.select([self._reader], [], [], timeout)[0]:
            return None
        os.read(self._reader, 1)
        event = self._events.popleft()
        if isinstance(event, Exception):
            raise event
        return event


class Sync:
    """What is true of the sync at any moment. Main thread and worker share it."""

    def __init__(self) -> None:
        self.events = Events()
        self.earlier = NOT_STARTED  # what was true before the present try
        self.present = NOT_STARTED  # what is true as far as that try alone can tell
        self.route = HOST  # of the present try
        self.last_reason = ""  # of the try before
        self._lock = threading.Lock()
        self._settled = False

    @property
    def truth(self) -> str:
        """What is true of the sync, all tries considered."""
        if self.present == NOT_STARTED and self.earlier != NOT_STARTED:
            return MAYBE_EARLIER
        return self.present

    @property
    def history(self) -> str:
        """What there is to add to the reason for which a run ended: the one before."""
        return f", after {self.last_reason}" if self.last_reason else ""

    def sending(self) -> None:
        """Note that the request goes out now; raise OSError if it must not any more."""
        with self._lock:
            if self._settled:
                raise OSError("the run has ended")
            self.present = MAYBE_STARTED

    def settle(self) -> str:
        """Let nothing go out from now on; return what is true."""
        with self._lock:
            self._settled = True
            return self.truth


class Body:
    """The body of the request, which notes when it is sent.

    requests asks for it when the connection stands, proxy and TLS included, and the
    headers are out. Until then nothing can have been started: they announce a body.
    """

    def __init__(self, sync: Sync) -> None:
        self.sync = sync

    def __len__(self) -> int:
        return len(FORCE)

    def __iter__(self) -> Iterator[bytes]:
        self.sync.sending()
        yield FORCE


def main() -> int:
    """Force the sync, keep a record, say what came of it; return the exit code."""
    sync = Sync()
    listen_to_signals(sync.events)
    label = ""
    outcome: Attempt | Failure
    try:
        inputs = read_inputs()
        check_requests()
        label = f"Connector {inputs.connector_id}: "

        # A record of no answer comes first: should this run be killed, none of an
        # earlier one is left, and a folder that cannot be written is found in time.
        keep(inputs, own_response("NoResponse", "no answer has come yet"))

        say(sys.stdout, f"Forcing a sync of connector {inputs.connector_id}")
        outcome = force_sync(inputs, sync)

        say(sys.stdout, f"Kept {keep(inputs, outcome.response)}")
    except Failure as failure:
        outcome = failure
        outcome.reason += sync.history
    except Exception as error:  # noqa: BLE001 - what nobody thought of is told, too
        mistake = f"a mistake in this script: {type(error).__name__}, {place(error)}"
        outcome = Failure(1, mistake, "Please report it")

    verdict = [outcome.reason, f"The sync {sync.settle()}", outcome.advice]
    stream = sys.stderr if outcome.exit_code else sys.stdout
    say(stream, label + ". ".join(filter(None, verdict)))
    return outcome.exit_code


def place(error: BaseException) -> str:
    """Return where an error came up; its own text may hold a secret."""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == __file__
    ]
    return f"line {lines[-1]}"


def listen_to_signals(events: Events) -> None:
    """Let Ctrl-C and SIGTERM end the run where it waits.

    They raise nothing elsewhere, so that nothing is left half done or said twice.
    SIGTERM would not even arrive at the first process of a container otherwise.
    """
    names = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

    def stop(number: int, frame: object) -> None:
        reason = f"ended by {names[signal.Signals(number)]}"
        events.put(Failure(128 + number, reason))

    for number in names:
        signal.signal(number, stop)


class Parser(argparse.ArgumentParser):
    """argparse, with mistakes reported in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise Failure. What argparse quotes is a value, and may be a secret."""
        raise wrong_input(re.split(" ['\"]", message)[0])

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print --help or --version, even if nobody reads it, as Python 3.11 does."""
        with suppress(AttributeError, OSError):
            super()._print_message(message, file)
            sys.stdout.flush()

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave at once, so that what nobody has read is not printed again."""
        os._exit(status)


def argument_parser() -> Parser:
    """Return the parser; what is not given as an argument is left empty."""
    refusals = [
        f"  {exit_code}  HTTP {status}: {advice}"
        for status, (exit_code, advice) in REFUSALS.items()
    ]
    parser = Parser(
        description=__doc__,
        epilog=EPILOG + "\n".join(refusals),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        default="",
        help="default: FIVETRAN_API_KEY, which is safer: ps shows arguments",
    )
    parser.add_argument(
        "--api-secret",
        metavar="SECRET",
        default="",
        help="default: FIVETRAN_API_SECRET, likewise",
    )
    parser.add_argument(
        "--connector-id",
        metavar="ID",
        default="",
        help="default: FIVETRAN_CONNECTOR_ID",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        default="60",
        help="for the network, with all tries and waits; default: 60",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    return parser


def read_inputs() -> Inputs:
    """Return the inputs, from arguments or else the environment.

    Raises Failure if one is missing or wrong.
    """
    given, unknown = argument_parser().parse_known_args()
    if unknown:
        # A value, perhaps in the same word, may be a secret.
        flag = re.match("--(api-key|api-secret)|--[a-z_-]+", unknown[0])
        if flag:
            raise wrong_input(f"unknown flag {flag[0]}")
        raise wrong_input("value without a flag")

    api_key = given.api_key.strip() or variable("FIVETRAN_API_KEY")
    api_secret = given.api_secret.strip() or variable("FIVETRAN_API_SECRET")
    connector_id = given.connector_id.strip() or variable("FIVETRAN_CONNECTOR_ID")
    SECRETS.add(api_key)
    remember_secret(api_key, api_secret)

    needed = {
        "--api-key or FIVETRAN_API_KEY": api_key,
        "--api-secret or FIVETRAN_API_SECRET": api_secret,
        "--connector-id or FIVETRAN_CONNECTOR_ID": connector_id,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise wrong_input(f"missing {', '.join(missing)}")

    folder = variable("SHIPYARD_ARTIFACTS_DIRECTORY") or "shipyard-artifacts"
    return Inputs(
        api_key=api_key,
        api_secret=api_secret,
        connector_id=checked_id("connector ID", connector_id),
        timeout=to_seconds(given.timeout),
        log_id=checked_id("SHIPYARD_LOG_ID", variable("SHIPYARD_LOG_ID")),
        artifacts=Path(folder),
    )


def variable(name: str) -> str:
    """Return a variable of the environment, "" if it is missing or blank."""
    return os.environ.get(name, "").strip()


def to_seconds(text: str) -> float:
    """Return the value of --timeout; raise Failure if it is no positive number."""
    with suppress(ValueError):
        seconds = float(text)
        if 0 < seconds < threading.TIMEOUT_MAX:
            return seconds
    raise wrong_input(f"--timeout takes seconds, more than 0, not {excerpt(text, 40)}")


def checked_id(name: str, value: str) -> str:
    """Return a value that can be part of a URL and of a file's name, or raise Failure."""
    rule = "it has at most 100 ASCII letters, digits, _ and -"
    if value in SECRETS:
        rule = "it is the API key or the API secret"
    elif re.fullmatch("[A-Za-z0-9_-]{0,100}", value):
        return value
    raise wrong_input(f"no {name} can be {excerpt(value, 120)}: {rule}")


def check_requests() -> None:
    """Raise Failure if requests, or something that it needs, is not installed."""
    try:
        import requests  # noqa: F401
    except ImportError as error:
        install = "python3 -m venv .venv && .venv/bin/pip install -q"
        install += " 'requests>=2.32.4,<3'"
        run = f".venv/bin/python {shlex.quote(sys.argv[0])}"
        reason = f"requests cannot be imported: {error}"
        raise Failure(2, reason, f"Type: {install} && {run}") from None


def wrong_input(reason: str) -> Failure:
    """Return the Failure that tells of a wrong input."""
    return Failure(2, reason, "For help: --help")


def keep(inputs: Inputs, response: str) -> str:
    """Replace both artifacts, each whole or not at all; return their paths.

    Raises Failure if they cannot be written; until the files are renamed, which is the
    last step, both are as they were.
    """
    folder = inputs.artifacts / "fivetran-blueprints"
    response_name = f"sync_{inputs.connector_id}_response.json"
    prefix = f"{inputs.log_id}_" if inputs.log_id else ""
    record_name = f"{prefix}force_sync.pickle"
    # As Check Sync Status loads it, with any Python 3. No older sync ends after this time.
    record = [inputs.connector_id, datetime.now(timezone.utc)]
    contents = {
        folder / "responses" / response_name: hide(response).encode(),
        folder / "variables" / record_name: pickle.dumps(record, protocol=3),
    }
    ending = f".{random.getrandbits(64):x}"
    drafts = {path: path.with_name(f".{path.name}{ending}") for path in contents}
    try:
        for path, draft in drafts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            draft.write_bytes(contents[path])
        for path, draft in drafts.items():
            draft.replace(path)
    except OSError as error:
        advice = "Check that disk and folder, or set SHIPYARD_ARTIFACTS_DIRECTORY"
        raise Failure(1, f"the record cannot be written: {error}", advice) from None
    finally:
        for draft in drafts.values():
            with suppress(OSError):
                draft.unlink()
    return " and ".join(map(str, contents))


def own_response(code: str, message: str, **more: str) -> str:
    """Return what is kept where Fivetran has sent nothing to keep, in its shape."""
    return json.dumps({"code": code, "message": message, **more}) + "\n"


def force_sync(inputs: Inputs, sync: Sync) -> Attempt:
    """Ask Fivetran to force the sync, up to four times; return the last attempt.

    Raises Failure on Ctrl-C and SIGTERM, if no thread can be started, and if what a try
    came to cannot be kept.
    """
    deadline = time.monotonic() + inputs.timeout
    sync.events.wait(0)  # a signal may have come already

    attempt = try_once(inputs, sync, deadline)
    for wait in WAITS_SECONDS:
        if attempt.retry_after is None:
            break
        pause = attempt.retry_after or wait * random.uniform(0.75, 1.25)
        if time.monotonic() + pause >= deadline:
            reason = f"{attempt.reason}; no time is left to wait {pause:.0f} s"
            return attempt._replace(reason=reason)
        keep(inputs, attempt.response)  # Ctrl-C may end the wait
        told = f"Connector {inputs.connector_id}: {attempt.reason}"
        say(sys.stderr, f"{told}. Trying again in {pause:.1f} s")
        sync.events.wait(pause)
        if time.monotonic() >= deadline:  # this process was stopped in between
            break
        attempt = try_once(inputs, sync, deadline)
    return attempt


def try_once(inputs: Inputs, sync: Sync, deadline: float) -> Attempt:
    """Have a worker send the request; return its attempt, or that time was over.

    A thread that nothing waits for can be left at any moment: no signal wakes a name
    look-up that hangs, and every byte starts the timeout of requests anew
    (psf/requests#1928, #3099).
    """

    def work() -> None:
        try:
            sync.events.put(post(inputs, sync))
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            sync.events.put(error)

    sync.earlier, sync.present = sync.truth, NOT_STARTED
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError as error:
        raise Failure(1, str(error), "Allow more processes") from None
    time_left = deadline - time.monotonic()
    attempt = sync.events.wait(time_left) or overdue(inputs, sync)
    sync.present = attempt.truth
    sync.last_reason = attempt.reason
    return attempt


def overdue(inputs: Inputs, sync: Sync) -> Attempt:
    """Return the result of a try that still runs at the deadline."""
    sync.settle()
    missing = "connection to" if sync.present == NOT_STARTED else "whole answer from"
    reason = f"no {missing} {sync.route} within {inputs.timeout:g} s{sync.history}"
    advice = "Run this again; --timeout gives it more time"
    return no_answer(reason, advice, sync.present, retry_after=None)


def post(inputs: Inputs, sync: Sync) -> Attempt:
    """Send the request once; return what came of it."""
    import requests
    import urllib3

    session = requests.Session()
    request = prepare(session, inputs, Body(sync))
    settings: Any = session.merge_environment_settings(
        request.url,
        proxies={},
        stream=True,
        verify=None,
        cert=None,
    )
    adapter: Any = session.get_adapter(request.url)
    # The answer of urllib3 will do: requests 2.32 fails at an odd Content-Type.
    adapter.build_response = lambda request, answer: answer
    try:
        sync.route = route_to_fivetran(request.url, settings["proxies"])
        # Not session.send(), which reads the whole body of a redirect.
        answer = adapter.send(request, timeout=(CONNECT_SECONDS, None), **settings)
        content = read(answer)
    except (OSError, UnicodeError, urllib3.exceptions.HTTPError) as error:
        if sync.present == NOT_STARTED:
            return unconnected(sync.route, error, settings["verify"])
        reason = f"no whole answer from {sync.route}: {explain(error)}"
        advice = "Run this again, which is safe"
        return no_answer(reason, advice, MAYBE_STARTED, retry_after=0)
    return judge(answer.status, answer.headers, content)


def prepare(session: Any, inputs: Inputs, body: Body) -> Any:
    """Return the request, as a PreparedRequest of requests."""
    import requests

    # As bytes: requests could not send other letters than those of Latin-1.
    credentials = os.fsencode(inputs.api_key), os.fsencode(inputs.api_secret)
    request = requests.Request(
        "POST",
        URL.format(connector_id=inputs.connector_id),
        headers=HEADERS,
        data=body,
        auth=requests.auth.HTTPBasicAuth(*credentials),
    )
    return session.prepare_request(request)


def route_to_fivetran(url: str, proxies: dict[str, str]) -> str:
    """Return the name of the host, and of a proxy in between, without its password.

    Raises InvalidProxyURL where requests would fail in other ways.
    """
    import requests
    import urllib3

    proxy = requests.utils.select_proxy(url, proxies)
    if not proxy:
        return HOST
    parts = None
    with suppress(ValueError):  # whose text may hold the password
        remember_secret(*requests.utils.get_auth_from_url(proxy))
        parts = urllib3.util.parse_url(proxy)
    if not parts or not parts.host:
        example = "http://proxy.example.com:8080"
        problem = f"HTTPS_PROXY or ALL_PROXY is no URL such as {example}"
        raise requests.exceptions.InvalidProxyURL(problem)
    user, _, password = (parts.auth or "").partition(":")
    remember_secret(user, password)  # as it is written there
    return f"{HOST} through the proxy {parts._replace(auth=None).url}"


def read(raw: Any) -> bytes:
    """Return the body of a urllib3 response as it came, at most RESPONSE_BYTES + 1.

    Raises urllib3's HTTPError if the connection ended before the answer did.
    """
    import urllib3

    raw.enforce_content_length = True  # urllib3 1.26 does not do so by itself
    try:
        body: bytes = raw.read(RESPONSE_BYTES + 1, decode_content=False)
        if len(body) <= RESPONSE_BYTES:
            raw.read(1, decode_content=False)  # raises the error
    except ValueError as error:  # http.client takes a negative size of a chunk
        raise urllib3.exceptions.ProtocolError(str(error)) from None
    if not body and raw.length_remaining is None and not raw.chunked:
        problem = "the connection ended, perhaps within the headers"
        raise urllib3.exceptions.ProtocolError(problem)
    return body


def judge(status: int, headers: Mapping[str, str], body: bytes) -> Attempt:
    """Return the result of a try that was answered."""
    truth = NOT_STARTED if 300 <= status < 500 else MAYBE_STARTED
    retry_after = None
    if status == 429 or 500 <= status < 600:
        retry_after = seconds_asked_for(headers)

    text = body.decode(errors="replace")
    content = json_object(body)
    if content is None:
        beginning = excerpt(" ".join(text.split()), 100) or "nothing"
        reason = f"HTTP {status}, not an answer of Fivetran; it begins: {beginning}"
        return Attempt(
            exit_code=249,
            reason=reason,
            advice="Look for a proxy, a firewall or a portal in between",
            response=own_response("InvalidResponse", reason, body=excerpt(text, 4096)),
            truth=truth,
            retry_after=retry_after,
        )

    code = content.get("code", "no code")
    message = content.get("message", "no message")
    request_id = headers.get("X-Request-Id", "none")
    reason = f"HTTP {status}, {excerpt(code, 80)}: {excerpt(message, 300)}"
    reason += f" (request ID {excerpt(request_id, 80)})"
    if 200 <= status < 300 and code == "Success":
        return Attempt(0, reason, "", text, STARTED)
    exit_code, advice = refusal(status)
    return Attempt(exit_code, reason, advice, text, truth, retry_after)


def refusal(status: int) -> tuple[int, str]:
    """Return exit code and advice for an answer of Fivetran's that is no success."""
    if status in REFUSALS:
        return REFUSALS[status]
    if 300 <= status < 500:
        return 201, "Look for a newer version of this script"
    return 249, "Fivetran seems to have a problem: see status.fivetran.com"


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that every answer of Fivetran's is, None for another."""
    with suppress(ValueError, RecursionError):
        content = json.loads(body.decode()) if len(body) <= RESPONSE_BYTES else None
        if isinstance(content, dict):
            return content
    return None


def seconds_asked_for(headers: Mapping[str, str]) -> float:
    """Return the seconds in Retry-After, 0 if there are none."""
    value = headers.get("Retry-After", "").strip()
    return float(value) if re.fullmatch("[0-9]+", value) else 0


def unconnected(route: str, error: Exception, ca_bundle: bool | str) -> Attempt:
    """Return the result of a try that could not be sent."""
    import urllib3
    from urllib3.util.ssl_match_hostname import CertificateError

    reason = f"no connection to {route}: {explain(error)}"
    advice = "Check the network, and HTTPS_PROXY if it needs a proxy"
    if has_cause(error, ssl.SSLCertVerificationError, CertificateError):
        advice = "Name the authority that you trust in REQUESTS_CA_BUNDLE"
    # A bare OSError is how requests tells of a CA bundle that is missing.
    elif type(error) is OSError or has_cause(error, urllib3.exceptions.SSLError):
        try:
            if isinstance(ca_bundle, str) and not os.path.isdir(ca_bundle):
                ssl.create_default_context(cafile=ca_bundle)
        except OSError as problem:
            reason = f"CA bundle {ca_bundle} cannot be read: {problem}"
            advice = "Check REQUESTS_CA_BUNDLE"
    return no_answer(reason, advice, NOT_STARTED, retry_after=0)


def no_answer(
    reason: str, advice: str, truth: str, retry_after: float | None
) -> Attempt:
    """Return the result of a try without a whole answer."""
    response = own_response("NoResponse", reason)
    return Attempt(249, reason, advice, response, truth, retry_after)


def explain(error: BaseException) -> str:
    """Return what went wrong, in the words of the system or else of urllib3.

    Others may repeat the proxy's URL with its password: only their type is told.
    """
    import requests
    import urllib3

    told = type(error).__name__
    for cause in causes(error):
        if isinstance(cause, (OSError, urllib3.exceptions.HTTPError)):
            told = excerpt(cause, 300) or type(cause).__name__
        of_requests = isinstance(cause, requests.RequestException)
        if isinstance(cause, OSError) and not of_requests:
            break
    return told


def has_cause(error: BaseException, *types: type[BaseException]) -> bool:
    """Return whether an error is, or was caused by, one of these types."""
    return any(isinstance(cause, types) for cause in causes(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it; urllib3 may keep that in the arguments."""
    while error:
        yield error
        argument = error.args[-1] if error.args else None
        cause = error.__cause__ or error.__context__ or argument
        error = cause if isinstance(cause, BaseException) else None


def remember_secret(user: str, password: str) -> None:
    """Have a password hidden, and the Base64 form in which it is sent.

    requests sends those of a proxy in Latin-1.
    """
    pair = f"{user}:{password}"
    for encoded in (os.fsencode(pair), pair.encode("latin-1", "replace")):
        SECRETS.add(base64.b64encode(encoded).decode())
    SECRETS.add(password)


def hide(text: str) -> str:
    """Return a text without the secrets. All that is said or kept goes through here."""
    for secret in sorted(SECRETS, key=len, reverse=True):
        if len(secret) > 5:  # else it is no secret, but part of common words
            text = text.replace(secret, "***")
    return text


def excerpt(text: object, length: int) -> str:
    """Return the beginning of a text; its secrets are hidden before it is cut."""
    return hide(str(text))[:length]


def say(stream: TextIO | None, text: str) -> None:
    """Print a line with the UTC time; do without a stream that is closed or full."""
    if stream is None:  # closed from the start
        return
    now = datetime.now(timezone.utc)
    line = f"{now:%Y-%m-%dT%H:%M:%SZ} {printable(hide(text))}\n"
    encodable = line.encode(stream.encoding, "backslashreplace")
    with suppress(OSError):
        stream.write(encodable.decode(stream.encoding))
        stream.flush()


def printable(text: str) -> str:
    """Return a text with line ends, escape sequences and the like made visible."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


if __name__ == "__main__":
    gc.disable()  # this ends long before there is garbage to speak of
    warnings.simplefilter("ignore")  # libraries' words to programmers
    # Leave at once: nothing is left to do, and a thread may hang.
    os._exit(main())
