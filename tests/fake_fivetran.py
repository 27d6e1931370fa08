#!/usr/bin/env python3
"""A local Fivetran, for the tests and for people without an account.

    python tests/fake_fivetran.py python fivetran_execute_sync.py

starts it, runs the command against it, shows the exchange on stderr and exits with
the command's exit code. The command needs no switch for this: it finds the local
Fivetran through HTTPS_PROXY and trusts it through REQUESTS_CA_BUNDLE.

It plays https://api.fivetran.com as its documentation describes it, over TLS with a
certificate for that name from an authority that lives as long as the server, behind
a CONNECT proxy on a loopback port. It listens on loopback only and opens no
connection to anywhere.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    import trustme
except ImportError:
    sys.exit("trustme is not installed; type: .venv/bin/pip install trustme")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "api.fivetran.com"
API_VERSIONS = ("1", "2")
INPUTS = {
    "FIVETRAN_API_KEY": "local_api_key",
    "FIVETRAN_API_SECRET": "local_api_secret",
    "FIVETRAN_CONNECTOR_ID": "speak_inexpensive",
}
SYNC_SECONDS = 5.0  # how long a sync takes when this runs as a program


@dataclass
class Connection:
    """A connection (connector) and its syncs, which run until finish() or their time."""

    id: str
    sync_seconds: float | None = None
    syncs: list[datetime] = field(default_factory=list)
    syncing: bool = False
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None

    def start(self) -> None:
        """Start a sync; one that runs is stopped, and neither succeeds nor fails."""
        self.syncs.append(datetime.now(timezone.utc))
        self.syncing = True

    def finish(self, *, succeeded: bool = True, at: datetime | None = None) -> None:
        """End the running sync, now or at the time given."""
        self.syncing = False
        at = at or datetime.now(timezone.utc)
        if succeeded:
            self.succeeded_at = at
        else:
            self.failed_at = at

    def details(self) -> dict[str, Any]:
        """What GET /v1/connections/{id} tells, as far as it matters to a sync."""
        if self.syncing and self.sync_seconds is not None:
            end = self.syncs[-1] + timedelta(seconds=self.sync_seconds)
            if end <= datetime.now(timezone.utc):
                self.finish(at=end)
        return {
            "id": self.id,
            "service": "google_sheets",
            "schema": "google_sheets.local",
            "paused": False,
            "succeeded_at": _timestamp(self.succeeded_at),
            "failed_at": _timestamp(self.failed_at),
            "schedule_type": "manual",
            "status": {
                "setup_state": "connected",
                "sync_state": "syncing" if self.syncing else "scheduled",
                "update_state": "on_schedule",
                "is_historical_sync": False,
            },
        }


def _timestamp(moment: datetime | None) -> str | None:
    return moment and moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Answer(NamedTuple):
    """An answer of the API."""

    status: int
    content: dict[str, Any]


def refusal(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"code": code, "message": message})


@dataclass
class Request:
    """A request that arrived whole; names of headers are in lower case.

    `status` is that of its answer, None as long as no whole one is on its way.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int | None = None


class Fault(NamedTuple):
    """A way to misbehave: `act` gets the bare or the TLS socket at `stage` and has the
    connection to itself; when it returns, the connection is closed.

    Stages: "connect" (CONNECT has arrived), "handshake" (CONNECT is answered, TLS has
    not begun), "answer" (the request has arrived). `status` is that of a whole answer.
    """

    stage: str
    act: Callable[[Any], None]
    status: int | None = None


class FakeFivetran:
    """The server, as a context manager; all its state can be read and set."""

    def __init__(
        self,
        api_key: str = INPUTS["FIVETRAN_API_KEY"],
        api_secret: str = INPUTS["FIVETRAN_API_SECRET"],
        connector_ids: tuple[str, ...] = (INPUTS["FIVETRAN_CONNECTOR_ID"],),
        sync_seconds: float | None = None,
        certified_host: str = HOST,
        show: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.credentials = (api_key, api_secret)
        self.connections = {id: Connection(id, sync_seconds) for id in connector_ids}
        self.tunnels: list[str] = []  # where to, of every CONNECT
        self.requests: list[Request] = []
        self.arrived = threading.Semaphore(0)  # released for every request
        self.faults: deque[Fault] = deque()  # one for each connection to come
        self.show = show
        self.lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="fake_fivetran_")
        self.ca_bundle = Path(self._folder.name, "ca.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_bundle))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified_host).configure_cert(self.tls)
        self._server = _Server(("127.0.0.1", 0), _Proxy)
        self._server.fivetran = self
        self.proxy_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeFivetran:  # noqa: PYI034 - Self is in Python 3.11
        self._server.serve_in_background()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._folder.cleanup()

    @contextmanager
    def listen_directly(self, address: str, port: int) -> Iterator[None]:
        """Be at this address too, for clients that come without the proxy."""
        server = _DirectServer((address, port), _Api)
        server.fivetran = self
        server.serve_in_background()
        try:
            yield
        finally:
            server.stop()

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """Return base, changed so that a client in it meets this server and no other."""
        unwanted = {"http_proxy", "all_proxy", "no_proxy"}
        kept = {
            name: text for name, text in base.items() if name.lower() not in unwanted
        }
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            kept[name] = str(self.ca_bundle)
        for name in (
            "HTTPS_PROXY",
            "https_proxy",
        ):  # wget and Node read only the latter
            kept[name] = self.proxy_url
        return kept

    def take_fault(self, stage: str) -> Fault | None:
        """Return the next fault if its stage has come."""
        with self.lock:
            if self.faults and self.faults[0].stage == stage:
                return self.faults.popleft()
        return None

    def answer(self, request: Request) -> Answer:
        """Answer a request as the API does; the order of the checks is the API's."""
        token = base64.b64encode(":".join(self.credentials).encode()).decode()
        if request.headers.get("authorization") != f"Basic {token}":
            return refusal(401, "AuthFailed", "Invalid authorization credentials")
        path = request.path.partition("?")[0]
        route = re.fullmatch(r"/v1/connections/([^/]+)(/sync)?", path)
        if not route:
            return refusal(404, "NotFound", "HTTP 404 Not Found")
        if request.method != ("POST" if route[2] else "GET"):
            return refusal(405, "MethodNotAllowed", "HTTP 405 Method Not Allowed")
        if not _acceptable(request.headers.get("accept", "*/*")):
            return refusal(406, "NotAcceptable", "HTTP 406 Not Acceptable")
        with self.lock:
            connection = self.connections.get(route[1])
            if not connection:
                message = f"Connection with id '{route[1]}' doesn't exist"
                return refusal(404, "NotFound_Connection", message)
            if route[2]:
                return _sync(connection, request)
            return Answer(200, {"code": "Success", "data": connection.details()})


def _acceptable(accept: str) -> bool:
    """Return whether JSON, in a version of the API that there is, will do."""
    version = re.search(r"version=([^;,\s]*)", accept)
    if version and version[1] not in API_VERSIONS:
        return False
    return bool(re.search(r"application/(json|\*)|\*/\*", accept))


def _sync(connection: Connection, request: Request) -> Answer:
    """Answer POST /v1/connections/{id}/sync and start the sync."""
    content_type = request.headers.get("content-type", "").partition(";")[0]
    if request.body and content_type.strip().lower() != "application/json":
        return refusal(415, "UnsupportedMediaType", "HTTP 415 Unsupported Media Type")
    try:
        force = json.loads(request.body or b"{}").get("force", False)
    except (ValueError, AttributeError):
        force = None
    if not isinstance(force, bool):
        return refusal(400, "InvalidInput", "Invalid JSON in request body")
    if connection.syncing and not force:
        message = "Sync is already in progress for this connection"
        return refusal(409, "Conflict", message)
    connection.start()
    message = "Sync has been successfully triggered for connection with id"
    content = {"code": "Success", "message": f"{message} '{connection.id}'"}
    return Answer(200, content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    fivetran: FakeFivetran

    def serve_in_background(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def serve_api(self, connection: Any, client_address: Any) -> None:
        """Be the API on this connection, over TLS."""
        with self.fivetran.tls.wrap_socket(connection, server_side=True) as tls:
            _Api(tls, client_address, self)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no news, any other error is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _DirectServer(_Server):
    """The API without a proxy before it."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.serve_api(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """What proxy and API have in common."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together: apart, the body waits for a late ACK
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Keep the standard log of http.server out of the way."""


class _Proxy(_Handler):
    """The CONNECT proxy, the only way in; it forwards nothing to anywhere."""

    def do_CONNECT(self) -> None:
        self.close_connection = True
        fivetran = self.server.fivetran
        fivetran.tunnels.append(self.path)
        if self.path != f"{HOST}:443":
            self.send_error(502, f"Only {HOST}:443 is behind this proxy")
            return
        fault = fivetran.take_fault("connect")
        if not fault:
            self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            fault = fivetran.take_fault("handshake")
        if fault:
            fault.act(self.connection)
        else:
            self.server.serve_api(self.connection, self.client_address)


class _Api(_Handler):
    """https://api.fivetran.com itself."""

    server_version = "FakeFivetran"
    sys_version = ""

    def handle_expect_100(self) -> bool:
        """Answer `Expect: 100-continue` at once: the answer waits in a buffer else."""
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def respond(self) -> None:
        fivetran = self.server.fivetran
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:  # the client went away in the middle
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        fivetran.requests.append(request)
        fivetran.arrived.release()
        self.show_request(request)
        fault = fivetran.take_fault("answer")
        if fault:
            self.close_connection = True
            request.status = fault.status
            fault.act(self.connection)
            return
        answer = fivetran.answer(request)
        request.status = answer.status
        self.send(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

    def send(self, answer: Answer) -> None:
        content = json.dumps(answer.content)
        request_id = uuid.uuid4().hex
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Request-Id", request_id)
        self.end_headers()
        self.wfile.write(content.encode())
        self.wfile.flush()
        show = self.server.fivetran.show
        show(f"< HTTP/1.1 {answer.status}\n< X-Request-Id: {request_id}\n< {content}")

    def show_request(self, request: Request) -> None:
        show = self.server.fivetran.show
        show(f"> {request.method} https://{HOST}{request.path}")
        for name in ("accept", "content-type", "user-agent"):
            if name in request.headers:
                show(f"> {name.title()}: {request.headers[name]}")
        show("> Authorization: (not shown)")
        if request.body:
            show(f"> {request.body.decode('utf-8', 'backslashreplace')}")


def main(command: list[str]) -> int:
    """Run the command against a local Fivetran and return its exit code."""
    if not command or command[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    inputs = {name: os.environ.get(name, "").strip() or INPUTS[name] for name in INPUTS}
    api_key, api_secret, connector_id = inputs.values()
    with FakeFivetran(
        api_key,
        api_secret,
        (connector_id,),
        SYNC_SECONDS,
        show=lambda lines: print(lines, file=sys.stderr, flush=True),
    ) as fivetran:
        # Ctrl-C reaches the command too, and the command says what it comes to.
        signal.signal(signal.SIGINT, lambda *_: None)
        environment = fivetran.environment({**os.environ, **inputs})
        try:
            code = subprocess.Popen(command, env=environment).wait()
        except OSError as error:
            print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
