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
import time
import uuid
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.client import responses
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
    ended: dict[str, datetime] = field(default_factory=dict)

    def start(self) -> None:
        """Start a sync; one that runs is stopped, and neither succeeds nor fails."""
        self.syncs.append(datetime.now(timezone.utc))
        self.syncing = True

    def finish(self, how: str = "succeeded", at: datetime | None = None) -> None:
        """End the running sync, now or at the time given; or it has "failed"."""
        self.ended[how] = at or datetime.now(timezone.utc)
        self.syncing = False

    def let_time_pass(self) -> None:
        """End the running sync if its time is over."""
        if self.syncing and self.sync_seconds is not None:
            end = self.syncs[-1] + timedelta(seconds=self.sync_seconds)
            if end <= datetime.now(timezone.utc):
                self.finish(at=end)

    def details(self) -> dict[str, Any]:
        """What GET /v1/connections/{id} tells, as far as it matters to a sync."""
        times = {f"{how}_at": f"{at:%FT%T.%fZ}" for how, at in self.ended.items()}
        state = "syncing" if self.syncing else "scheduled"
        return {
            "id": self.id,
            "succeeded_at": None,
            "failed_at": None,
            **times,
            "status": {"setup_state": "connected", "sync_state": state},
        }


@dataclass
class Request:
    """A request that arrived whole; names of headers are in lower case.

    `status` is that of its answer, None as long as no whole one is on its way; `at` is
    when it arrived, in seconds of a clock that starts anywhere.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int | None = None
    at: float = field(default_factory=time.monotonic)


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

    def __enter__(self) -> FakeFivetran:  # noqa: PYI034 - Self is in Python 3.11
        self._server = _Server(self, ("127.0.0.1", 0), _Proxy)
        self.proxy_url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._folder.cleanup()

    @contextmanager
    def listen_directly(self, address: str, port: int) -> Iterator[None]:
        """Be at this address too, for clients that come without the proxy."""
        server = _Server(self, (address, port), _serve_api)
        try:
            yield
        finally:
            server.stop()

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """Return base, changed so that a client in it meets this server and no other.

        wget and Node's clients read the names of proxies in lower case only.
        """
        proxies = {"https_proxy", "http_proxy", "all_proxy", "no_proxy"}
        kept = {name: base[name] for name in base if name.lower() not in proxies}
        bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        kept.update(dict.fromkeys(bundles, str(self.ca_bundle)))
        return {**kept, "HTTPS_PROXY": self.proxy_url, "https_proxy": self.proxy_url}

    def take_fault(self, stage: str) -> Fault | None:
        """Return the next fault if its stage has come."""
        with self.lock:
            if self.faults and self.faults[0].stage == stage:
                return self.faults.popleft()
        return None

    def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Return status and content of the API's answer, with checks in its order."""
        token = base64.b64encode(":".join(self.credentials).encode()).decode()
        if request.headers.get("authorization") != f"Basic {token}":
            return _answer(401, "AuthFailed", "Invalid authorization credentials")
        route = re.fullmatch(r"/v1/connections/([^/?]+)(/sync)?(\?.*)?", request.path)
        if not route:
            return _answer(404, "NotFound", "HTTP 404 Not Found")
        if request.method != ("POST" if route[2] else "GET"):
            return _answer(405, "MethodNotAllowed", "HTTP 405 Method Not Allowed")
        if not _acceptable(request.headers.get("accept", "*/*")):
            return _answer(406, "NotAcceptable", "HTTP 406 Not Acceptable")
        with self.lock:
            connection = self.connections.get(route[1])
            if not connection:
                message = f"Connection with id '{route[1]}' doesn't exist"
                return _answer(404, "NotFound_Connection", message)
            connection.let_time_pass()
            if route[2]:
                return _sync(connection, request)
            return 200, {"code": "Success", "data": connection.details()}


def _acceptable(accept: str) -> bool:
    """Return whether JSON, in a version of the API that there is, will do."""
    version = re.search(r"version=([^;,\s]*)", accept)
    if version and version[1] not in API_VERSIONS:
        return False
    return bool(re.search(r"application/(json|\*)|\*/\*", accept))


def http_answer(status: int, body: str | bytes, headers: dict[str, str]) -> bytes:
    """Return an answer as it goes over the wire."""
    body = body.encode() if isinstance(body, str) else body
    usual = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Odd')}"]
    lines += [f"{name}: {value}" for name, value in {**usual, **headers}.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _answer(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"code": code, "message": message}


def _sync(connection: Connection, request: Request) -> tuple[int, dict[str, Any]]:
    """Answer POST /v1/connections/{id}/sync and start the sync."""
    content_type = request.headers.get("content-type", "").partition(";")[0]
    if request.body and content_type.strip().lower() != "application/json":
        return _answer(415, "UnsupportedMediaType", "HTTP 415 Unsupported Media Type")
    try:
        force = json.loads(request.body or b"{}").get("force", False)
    except (ValueError, AttributeError):
        force = None
    if not isinstance(force, bool):
        return _answer(400, "InvalidInput", "Invalid JSON in request body")
    if connection.syncing and not force:
        message = "Sync is already in progress for this connection"
        return _answer(409, "Conflict", message)
    connection.start()
    message = "Sync has been successfully triggered for connection with id"
    return _answer(200, "Success", f"{message} '{connection.id}'")


class _Server(ThreadingHTTPServer):
    """Serves in the background, from its making on."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, fivetran: FakeFivetran, address: Any, handler: Any) -> None:
        super().__init__(address, handler)
        self.fivetran = fivetran
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no news, any other error is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """What proxy and API have in common."""

    protocol_version = "HTTP/1.1"
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
            _serve_api(self.connection, self.client_address, self.server)


def _serve_api(connection: Any, address: Any, server: Any) -> None:
    """Be the API on this connection, over TLS."""
    with server.fivetran.tls.wrap_socket(connection, server_side=True) as tls:
        _Api(tls, address, server)


class _Api(_Handler):
    """https://api.fivetran.com itself."""

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
        fivetran.show(f"> {request.method} https://{HOST}{request.path}")
        for name in ("accept", "content-type", "user-agent"):
            fivetran.show(f"> {name.title()}: {headers.get(name, '')}")
        fivetran.show("> Authorization: (not shown)")
        fivetran.show("> " + body.decode(errors="replace"))
        fault = fivetran.take_fault("answer")
        if fault:
            self.close_connection = True
            request.status = fault.status
            fault.act(self.connection)
            return
        request.status, content = fivetran.answer(request)
        request_id = {"X-Request-Id": uuid.uuid4().hex}
        answer = http_answer(request.status, json.dumps(content), request_id)
        fivetran.show("< " + answer.decode().replace("\r\n", "\n< "))
        self.connection.sendall(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond


def main(command: list[str]) -> int:
    """Run the command against a local Fivetran and return its exit code."""
    if not command or command[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    inputs = {name: os.environ.get(name, "").strip() or INPUTS[name] for name in INPUTS}
    api_key, api_secret, connector_id = inputs.values()

    def show(lines: str) -> None:
        print(lines, file=sys.stderr, flush=True)

    with FakeFivetran(
        api_key, api_secret, (connector_id,), SYNC_SECONDS, show=show
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
