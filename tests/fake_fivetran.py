#!/usr/bin/env python3
"""A local Fivetran, for the tests and for people without an account.

    python tests/fake_fivetran.py python fivetran_execute_sync.py

starts it, runs the command against it, shows the requests and responses on stderr and
exits with the command's exit code. The command needs no switch for this: it finds the
local Fivetran through HTTPS_PROXY and trusts it through REQUESTS_CA_BUNDLE.

It plays https://api.fivetran.com as its documentation describes it, over TLS with a
certificate for that name from an authority that lives as long as the server, behind a
CONNECT proxy on a loopback port. It opens no connection to anywhere.
"""

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
import time
import uuid
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import trustme

HOST = "api.fivetran.com"
INPUTS = {
    "FIVETRAN_API_KEY": "local_api_key",
    "FIVETRAN_API_SECRET": "local_api_secret",
    "FIVETRAN_CONNECTOR_ID": "speak_inexpensive",
}


@dataclass
class Connection:
    """A connection (connector) and its syncs; the last one runs until finish()."""

    id: str
    syncs: list[datetime] = field(default_factory=list)  # when each was started
    syncing: bool = False
    succeeded_at: Any = None

    def start(self):
        self.syncs.append(datetime.now(timezone.utc))
        self.syncing = True

    def finish(self):
        self.succeeded_at = datetime.now(timezone.utc)
        self.syncing = False

    def details(self):
        at = self.succeeded_at
        return {
            "id": self.id,
            "succeeded_at": f"{at:%FT%T.%fZ}" if at else None,
            "failed_at": None,
            "status": {"sync_state": "syncing" if self.syncing else "scheduled"},
        }


@dataclass
class Request:
    """A request that arrived whole; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0  # of Fivetran's own answer, if a whole one is sent
    at: float = field(default_factory=time.monotonic)


class Fault(NamedTuple):
    """A way to misbehave: `act` gets the socket at `stage`, which is closed afterwards.

    Stages: "connect" (CONNECT has arrived), "handshake" (CONNECT is answered, TLS has
    not begun), "answer" (the request has arrived). `status` is that of Request.
    """

    stage: str
    act: Any
    status: int = 0


class FakeFivetran:
    """The server, as a context manager; all its state can be read and set."""

    def __init__(self, inputs=INPUTS, certified_host=HOST, show=lambda line: None):
        api_key, api_secret, connector_id = inputs.values()
        self.credentials = (api_key, api_secret)
        self.connections = {connector_id: Connection(connector_id)}
        self.tunnels: list[str] = []  # where to, of every CONNECT
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()  # one for each connection to come
        self.show = show
        self._folder = tempfile.TemporaryDirectory(prefix="fake_fivetran_")
        self.ca_bundle = str(Path(self._folder.name, "ca.pem"))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_bundle)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified_host).configure_cert(self.tls)

    def __enter__(self):
        self._proxy = _Server(self, ("127.0.0.1", 0), _Handler)
        self.proxy_url = f"http://127.0.0.1:{self._proxy.server_port}"
        return self

    def __exit__(self, *_):
        self._proxy.stop()
        self._folder.cleanup()

    @contextmanager
    def listen_directly(self, address, port):
        """Be at this address too, for clients that come without the proxy."""
        server = _Server(self, (address, port), _serve_api)
        try:
            yield
        finally:
            server.stop()

    def environment(self, base):
        """Return base, changed so that a client in it meets this server and no other."""
        proxies = {"https_proxy", "http_proxy", "all_proxy", "no_proxy"}
        kept = {name: base[name] for name in base if name.lower() not in proxies}
        bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        kept.update(dict.fromkeys(bundles, self.ca_bundle))
        return {**kept, "HTTPS_PROXY": self.proxy_url}

    def take_fault(self, stage):
        """Return the next fault if its stage has come."""
        due = self.faults and self.faults[0].stage == stage
        return self.faults.popleft() if due else None

    def answer(self, request):
        """Return status and content of the API's answer, with checks in its order."""
        token = base64.b64encode(":".join(self.credentials).encode()).decode()
        if request.headers.get("authorization") != f"Basic {token}":
            return _refuse(401, "AuthFailed", "Invalid authorization credentials")
        route = re.fullmatch(r"/v1/connections/([^/?]+)(/sync)?", request.path)
        if not route:
            return _refuse(404, "NotFound", "HTTP 404 Not Found")
        if request.method != ("POST" if route[2] else "GET"):
            return _refuse(405, "MethodNotAllowed", "HTTP 405 Method Not Allowed")
        if request.headers.get("accept") != "application/json;version=2":
            return _refuse(406, "NotAcceptable", "HTTP 406 Not Acceptable")
        connection = self.connections.get(route[1])
        if not connection:
            message = f"Connection with id '{route[1]}' doesn't exist"
            return _refuse(404, "NotFound_Connection", message)
        if route[2]:
            return _sync(connection, request)
        return 200, {"code": "Success", "data": connection.details()}


def _refuse(status, code, message):
    return status, {"code": code, "message": message}


def _sync(connection, request):
    """Answer POST /v1/connections/{id}/sync and start the sync."""
    if request.body and request.headers.get("content-type") != "application/json":
        return _refuse(415, "UnsupportedMediaType", "HTTP 415 Unsupported Media Type")
    try:
        force = json.loads(request.body or b"{}").get("force", False)
    except (ValueError, AttributeError):
        force = None
    if not isinstance(force, bool):
        return _refuse(400, "InvalidInput", "Invalid JSON in request body")
    if connection.syncing and not force:
        return _refuse(409, "Conflict", "Sync is already in progress")
    connection.start()
    message = "Sync has been successfully triggered for connection with id"
    return 200, {"code": "Success", "message": f"{message} '{connection.id}'"}


def http_answer(status, body, headers=None):
    """Return an answer as it goes over the wire."""
    usual = {"Content-Type": "application/json", "Content-Length": len(body)}
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Odd')}"]
    lines += [
        f"{name}: {value}" for name, value in {**usual, **(headers or {})}.items()
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Server(ThreadingHTTPServer):
    """Serves in the background, from its making on."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, fivetran, address, handler):
        super().__init__(address, handler)
        self.fivetran = fivetran
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that goes away in the middle is no news, any other error is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """The CONNECT proxy, and over TLS the API; it forwards nothing to anywhere."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        """Keep the standard log of http.server out of the way."""

    def do_CONNECT(self):
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

    def respond(self):
        fivetran = self.server.fivetran
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:  # the client went away in the middle
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        fivetran.requests.append(request)
        fivetran.show(f"> {request.method} https://{HOST}{request.path}")
        for name in ("accept", "content-type", "user-agent"):
            fivetran.show(f"> {name.title()}: {headers.get(name, '')}")
        fivetran.show("> " + body.decode(errors="replace"))
        fault = fivetran.take_fault("answer")
        if fault:
            self.close_connection = True
            request.status = fault.status
            fault.act(self.connection)
            return
        request.status, content = fivetran.answer(request)
        request_id = {"X-Request-Id": uuid.uuid4().hex}
        answer = http_answer(request.status, json.dumps(content).encode(), request_id)
        fivetran.show("< " + answer.decode().replace("\r\n", "\n< "))
        self.connection.sendall(answer)

    do_GET = do_POST = respond


def _serve_api(connection, address, server):
    """Be the API on this connection, over TLS."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with server.fivetran.tls.wrap_socket(connection, server_side=True) as tls:
        _Handler(tls, address, server)


def main(command):
    """Run the command against a local Fivetran and return its exit code."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    inputs = {name: os.environ.get(name, "").strip() or INPUTS[name] for name in INPUTS}
    environment = {**os.environ, **inputs}
    if not environment.get("SHIPYARD_ARTIFACTS_DIRECTORY", "").strip():
        folder = tempfile.mkdtemp(prefix="fake_fivetran_artifacts_")
        environment["SHIPYARD_ARTIFACTS_DIRECTORY"] = folder
        print(f"Artifacts go to {folder}", file=sys.stderr)

    def show(lines):
        print(lines, file=sys.stderr, flush=True)

    with FakeFivetran(inputs, show=show) as fivetran:
        # Ctrl-C reaches the command too, and the command says what comes of it.
        signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = subprocess.call(command, env=fivetran.environment(environment))
        except OSError as error:
            print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
