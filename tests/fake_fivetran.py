#!/usr/bin/env python3
"""A local Fivetran, for the tests and for people without an account.

    python tests/fake_fivetran.py python fivetran_execute_sync.py

starts it, runs the command against it, shows the exchange on stderr and exits
with the command's exit code. The command needs no switch for this: it finds the
local Fivetran through HTTPS_PROXY and trusts it through REQUESTS_CA_BUNDLE.

It plays https://api.fivetran.com as its documentation describes it, over TLS
with a certificate for that name from an authority that lives as long as the
server, behind a CONNECT proxy on a loopback port. It listens on loopback only
and opens no connection to anywhere.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
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
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    import trustme
except ImportError:
    sys.exit("trustme is not installed; type: .venv/bin/pip install trustme")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HOST = "api.fivetran.com"
API_KEY = "local_api_key"
API_SECRET = "local_api_secret"
CONNECTOR_ID = "speak_inexpensive"

# How long a sync takes when the local Fivetran runs as a program.
SYNC_SECONDS = 5.0


class Request(NamedTuple):
    """A request as it arrived: names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Connection:
    """A connection (connector) and its syncs; `sync_seconds` None: they run until finish()."""

    id: str
    sync_seconds: float | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None
    syncs: list[datetime] = field(default_factory=list)
    syncing: bool = False

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

    def settle(self) -> None:
        """End the running sync if its time has come."""
        if self.syncing and self.sync_seconds is not None:
            end = self.syncs[-1] + timedelta(seconds=self.sync_seconds)
            if end <= datetime.now(timezone.utc):
                self.finish(at=end)

    def details(self) -> dict[str, Any]:
        """What GET /v1/connections/{id} tells of it, in the documented shape."""
        return {
            "id": self.id,
            "group_id": "projected_sickle",
            "service": "google_sheets",
            "service_version": 1,
            "schema": "google_sheets.local",
            "paused": False,
            "pause_after_trial": False,
            "connected_by": "interment_burdensome",
            "created_at": _timestamp(self.created_at),
            "succeeded_at": _timestamp(self.succeeded_at),
            "failed_at": _timestamp(self.failed_at),
            "sync_frequency": 1440,
            "schedule_type": "manual",
            "status": {
                "setup_state": "connected",
                "schema_status": "ready",
                "sync_state": "syncing" if self.syncing else "scheduled",
                "update_state": "on_schedule",
                "is_historical_sync": False,
                "tasks": [],
                "warnings": [],
            },
            "config": {},
            "source_sync_details": {},
        }


class Answer(NamedTuple):
    """An answer of the API, and headers beyond the usual ones."""

    status: HTTPStatus
    content: dict[str, Any]
    headers: Mapping[str, str] = MappingProxyType({})


class Fault(NamedTuple):
    """A way to misbehave: `act` gets the bare or the TLS socket at `stage` and
    has the connection to itself; when it returns, the connection is closed.

    Stages: "connect" (CONNECT has arrived), "handshake" (CONNECT is answered,
    TLS has not begun), "answer" (the request has arrived).
    """

    stage: str
    act: Callable[[Any], None]


class FakeFivetran:
    """The server, as a context manager; all its state can be read and set."""

    def __init__(
        self,
        api_key: str = API_KEY,
        api_secret: str = API_SECRET,
        connector_ids: tuple[str, ...] = (CONNECTOR_ID,),
        sync_seconds: float | None = None,
        port: int = 0,
        certified_host: str = HOST,
        show: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.credentials = (api_key, api_secret)
        self.connections = {id: Connection(id, sync_seconds) for id in connector_ids}
        self.tunnels: list[str] = []  # where to, of every CONNECT
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()  # one for each connection to come
        self.show = show
        self.lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="fake_fivetran_")
        self.ca_bundle = Path(self._folder.name, "ca.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_bundle))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified_host).configure_cert(self.tls)
        self._server = _Server(("127.0.0.1", port), _Proxy)
        self._server.fivetran = self
        self.proxy_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeFivetran:  # noqa: PYI034 - Self is in Python 3.11
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    @contextmanager
    def listen_directly(self, address: str, port: int) -> Iterator[None]:
        """Be at this address too, for clients that come without the proxy."""
        server = _DirectServer((address, port), _Api)
        server.fivetran = self
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """Return base, changed so that a client in it meets this server and no other."""
        unwanted = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
        kept = {
            name: value for name, value in base.items() if name.lower() not in unwanted
        }
        bundle = dict.fromkeys(
            ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"),
            str(self.ca_bundle),
        )
        return {**kept, **bundle, "HTTPS_PROXY": self.proxy_url}

    def take_fault(self, stage: str) -> Fault | None:
        """Return the next fault if its stage has come."""
        with self.lock:
            if self.faults and self.faults[0].stage == stage:
                return self.faults.popleft()
        return None

    def answer(self, request: Request) -> Answer:
        """Answer a request as the API does; the order of the checks is the API's."""
        if not self._authorized(request.headers.get("authorization", "")):
            return _refusal(
                HTTPStatus.UNAUTHORIZED,
                "AuthFailed",
                "Invalid authorization credentials",
                {"WWW-Authenticate": 'Basic realm="Fivetran"'},
            )
        route = re.fullmatch(
            r"/v1/connections/([^/?#]+)(/sync)?", request.path.partition("?")[0]
        )
        if not route:
            return _refusal(HTTPStatus.NOT_FOUND, "NotFound", "HTTP 404 Not Found")
        method = "POST" if route[2] else "GET"
        if request.method != method:
            return _refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "HTTP 405 Method Not Allowed",
                {"Allow": method},
            )
        if not re.search(
            r"application/(json|\*)|\*/\*", request.headers.get("accept", "*/*")
        ):
            return _refusal(
                HTTPStatus.NOT_ACCEPTABLE, "NotAcceptable", "HTTP 406 Not Acceptable"
            )
        with self.lock:
            connection = self.connections.get(route[1])
            if not connection:
                return _refusal(
                    HTTPStatus.NOT_FOUND,
                    "NotFound_Connection",
                    f"Connection with id '{route[1]}' doesn't exist",
                )
            connection.settle()
            if method == "GET":
                content = {"code": "Success", "data": connection.details()}
                return Answer(HTTPStatus.OK, content)
            return _sync(connection, request)

    def _authorized(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        expected = base64.b64encode(":".join(self.credentials).encode()).decode()
        return scheme.lower() == "basic" and token.strip() == expected


def _sync(connection: Connection, request: Request) -> Answer:
    """Answer POST /v1/connections/{id}/sync and start the sync."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type.lower() != "application/json":
        return _refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "HTTP 415 Unsupported Media Type",
        )
    try:
        force = json.loads(request.body or b"{}").get("force", False)
    except (ValueError, AttributeError):
        force = None
    if not isinstance(force, bool):
        return _refusal(
            HTTPStatus.BAD_REQUEST, "InvalidInput", "Invalid JSON in request body"
        )
    if connection.syncing and not force:
        return _refusal(
            HTTPStatus.CONFLICT,
            "Conflict",
            "Sync is already in progress for this connection",
        )
    connection.start()
    message = (
        f"Sync has been successfully triggered for connection with id '{connection.id}'"
    )
    return Answer(HTTPStatus.OK, {"code": "Success", "message": message})


def _refusal(
    status: HTTPStatus, code: str, message: str, headers: dict[str, str] | None = None
) -> Answer:
    return Answer(status, {"code": code, "message": message}, headers or {})


def _timestamp(moment: datetime | None) -> str | None:
    return moment and moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    fivetran: FakeFivetran

    def serve_api(self, connection: socket.socket, client_address: Any) -> None:
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

    def give_way(self, stage: str) -> bool:
        """Let the fault whose stage has come have the connection, if there is one."""
        fault = self.server.fivetran.take_fault(stage)
        if fault:
            self.close_connection = True
            fault.act(self.connection)
        return fault is not None


class _Proxy(_Handler):
    """The CONNECT proxy, the only way in; it forwards nothing to anywhere."""

    def do_CONNECT(self) -> None:
        self.close_connection = True
        fivetran = self.server.fivetran
        fivetran.tunnels.append(self.path)
        if self.path != f"{HOST}:443":
            self.send_error(
                HTTPStatus.BAD_GATEWAY, f"Only {HOST}:443 is behind this proxy"
            )
            return
        if self.give_way("connect"):
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if self.give_way("handshake"):
            return
        self.server.serve_api(self.connection, self.client_address)


class _Api(_Handler):
    """https://api.fivetran.com itself."""

    server_version = "FakeFivetran"
    sys_version = ""

    def answer(self) -> None:
        fivetran = self.server.fivetran
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.close_connection = True  # where its body ends is not known
            answer = _refusal(
                HTTPStatus.LENGTH_REQUIRED, "LengthRequired", "HTTP 411 Length Required"
            )
        else:
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body)
            fivetran.requests.append(request)
            self.show_request(request)
            if self.give_way("answer"):
                return
            answer = fivetran.answer(request)
        self.send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def send(self, answer: Answer) -> None:
        content = json.dumps(answer.content).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "X-Request-Id": uuid.uuid4().hex,
            **answer.headers,
        }
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.server.fivetran.show(
            f"< HTTP/1.1 {answer.status.value} {answer.status.phrase}"
        )
        self.server.fivetran.show(f"< X-Request-Id: {headers['X-Request-Id']}")
        self.server.fivetran.show(f"< {content.decode()}")

    def show_request(self, request: Request) -> None:
        show = self.server.fivetran.show
        show(f"> {request.method} https://{HOST}{request.path}")
        for name in ("accept", "content-type", "user-agent"):
            if name in request.headers:
                show(f"> {name.title()}: {request.headers[name]}")
        if "authorization" in request.headers:
            show("> Authorization: (not shown)")
        if request.body:
            show(f"> {request.body.decode('utf-8', 'backslashreplace')}")


def main(command: list[str]) -> int:
    """Run the command against a local Fivetran and return its exit code."""
    if not command or command[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    defaults = {
        "FIVETRAN_API_KEY": API_KEY,
        "FIVETRAN_API_SECRET": API_SECRET,
        "FIVETRAN_CONNECTOR_ID": CONNECTOR_ID,
    }
    inputs = {
        name: os.environ.get(name, "").strip() or defaults[name] for name in defaults
    }
    with FakeFivetran(
        inputs["FIVETRAN_API_KEY"],
        inputs["FIVETRAN_API_SECRET"],
        (inputs["FIVETRAN_CONNECTOR_ID"],),
        SYNC_SECONDS,
        show=lambda line: print(line, file=sys.stderr, flush=True),
    ) as fivetran:
        try:
            process = subprocess.Popen(
                command, env=fivetran.environment({**os.environ, **inputs})
            )
        except OSError as error:
            print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
        # Ctrl-C reaches the command too, and the command says what it comes to.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
