#!/usr/bin/env python3
"""A local stand-in for Fivetran, for the tests and for people without an account.

    .venv/bin/python tests/fake_fivetran.py .venv/bin/python fivetran_execute_sync.py

starts it, runs the command against it, shows the requests and responses on stderr, and
exits with the command's exit code. The command finds it through HTTPS_PROXY, trusts it
through REQUESTS_CA_BUNDLE, and gets the credentials and the ID that you have not set.

It plays https://api.fivetran.com as documented, over TLS with a certificate from an
authority of its own, behind a CONNECT proxy on a loopback port. It opens no connection.
"""

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
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http.client import responses
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, NamedTuple

try:
    import trustme
except ImportError as error:
    sys.exit(f"{error}. Install it with: .venv/bin/pip install trustme")

HOST = "api.fivetran.com"
INPUTS = {
    "FIVETRAN_API_KEY": "local_api_key",
    "FIVETRAN_API_SECRET": "local_secret",
    "FIVETRAN_CONNECTOR_ID": "speak_inexpensive",
}
# What is played, and the fields that a body may have.
PLAYED = {
    "GET": (),
    "PATCH": ("schedule_type", "run_setup_tests"),
    "POST /sync": ("force",),
}


class Connection:
    """A connection (connector) and its syncs; each one stops the one before it."""

    def __init__(self, connection_id):
        self.id = connection_id
        self.schedule_type = "auto"
        self.sync_seconds = 5
        self.syncs = []  # when each was started

    def details(self):
        now = datetime.now(timezone.utc)
        ends = [sync + timedelta(seconds=self.sync_seconds) for sync in self.syncs]
        done = [end for end, stop in zip(ends, [*self.syncs[1:], now]) if end <= stop]
        sync_state = "syncing" if ends[-1:] > [now] else "scheduled"
        return {
            "id": self.id,
            "succeeded_at": f"{done[-1]:%FT%T.%fZ}" if done else None,
            "failed_at": None,
            "schedule_type": self.schedule_type,
            "status": {"setup_state": "connected", "sync_state": sync_state},
        }


class Fault(NamedTuple):
    """A way to misbehave: `act` gets the socket at `stage`; it is closed afterwards."""

    stage: str  # "connect" (it has arrived), "handshake" (TLS is to begin), "answer"
    act: Any
    sync: str = "unclear"  # what becomes that of the request


class FakeFivetran:
    """The server, as a context manager; all its state can be read and set."""

    def __init__(self, inputs=INPUTS, certified_host=HOST, show=lambda lines: None):
        *self.credentials, connector_id = inputs.values()
        self.connections = {connector_id: Connection(connector_id)}
        self.tunnels = []  # where to, of every CONNECT
        self.requests = []  # an Api for each request that arrived whole
        self.faults = {}  # for each client, one Fault for each connection to come
        self.show = show
        self._folder = tempfile.TemporaryDirectory(prefix="fake_fivetran_")
        self.ca_bundle = os.path.join(self._folder.name, "ca.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_bundle)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified_host).configure_cert(self.tls)

    def __enter__(self):
        self._proxy = Server(self, ("127.0.0.1", 0), _Proxy)
        self.proxy_url = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        return self

    def __exit__(self, *_):
        self._proxy.__exit__()
        self._folder.cleanup()

    def environment(self, base):
        """Return base, so changed that a client in it meets this server, no other."""
        kept = {k: base[k] for k in base if not k.lower().endswith("_proxy")}
        kept.update(REQUESTS_CA_BUNDLE=self.ca_bundle, CURL_CA_BUNDLE=self.ca_bundle)
        return {**kept, "HTTPS_PROXY": self.proxy_url}

    def requests_of(self, client):
        return [request for request in self.requests if request.client == client]

    def misbehave(self, stage, handler):
        """Let the client's next fault act if its stage has come; say whether it did."""
        faults = self.faults.get(handler.client)
        if faults and faults[0].stage == stage:
            fault = faults.pop(0)
            handler.sync = fault.sync
            fault.act(handler.connection)
            return True
        return False

    def answer(self, request):
        """Return status, code and message or data of the API's answer."""
        token = base64.b64encode(":".join(self.credentials).encode()).decode()
        if request.headers.get("authorization") != f"Basic {token}":
            return 401, "AuthFailed", "Invalid authorization credentials"
        fields = json.loads(request.body or "{}")
        what = f"{request.command} {request.path}"
        route = re.fullmatch(r"([A-Z]+) /v1/connections/([^/?]+)(/sync)?", what)
        played = route and PLAYED.get(f"{route[1]} {route[3] or ''}".strip())
        if played is None or not set(fields) <= set(played):
            return 404, "NotFound", f"The local Fivetran does not play {what} {fields}"
        connection = self.connections.get(route[2])
        if not connection:
            return 404, "NotFound_Connection", f"'{route[2]}' doesn't exist"
        if request.command != "POST":
            vars(connection).update({k: fields[k] for k in fields if k[0] == "s"})
            return 200, "Success", connection.details()
        connection.syncs.append(datetime.now(timezone.utc))
        message = "Sync has been successfully triggered for connection with id"
        return 200, "Success", f"{message} '{connection.id}'"


def http_answer(status, body, headers=None):
    """Return an answer as it goes over the wire."""
    usual = {"Content-Type": "application/json", "Content-Length": len(body)}
    head = f"HTTP/1.1 {status} {responses.get(status, 'Odd')}\r\n"
    for name, value in {**usual, **(headers or {})}.items():
        head += f"{name}: {value}\r\n"
    return f"{head}\r\n".encode() + body


class Server(ThreadingTCPServer):
    """Serves in the background, from its making to the end of its `with`."""

    daemon_threads = True  # a client that stays does not keep Python up
    request_queue_size = 128

    def __init__(self, fivetran, address, handler):
        self.fivetran = fivetran
        super().__init__(address, handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *connection):
        """A client that goes away in the middle is no news, any other error is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*connection)


class _Proxy(BaseHTTPRequestHandler):
    """The CONNECT proxy, which forwards nothing to anywhere."""

    def do_CONNECT(self):
        self.close_connection = True
        fivetran = self.server.fivetran
        fivetran.tunnels.append(self.path)
        token = self.headers.get("Proxy-Authorization", "").partition(" ")[2]
        self.client = base64.b64decode(token).decode().partition(":")[0]
        if fivetran.misbehave("connect", self):
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if not fivetran.misbehave("handshake", self):
            Api(self.connection, self.client_address, self.server, self.client)


class Api(BaseHTTPRequestHandler):
    """The API over TLS, for one client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, connection, address, server, client=""):
        self.client = client  # the user name that the client gave to the proxy
        self.sync = "unclear"  # or "started", or "refused": what the client was told
        with server.fivetran.tls.wrap_socket(connection, server_side=True) as tls:
            super().__init__(tls, address, server)  # which serves it to its end

    def respond(self):
        fivetran = self.server.fivetran
        length = int(self.headers.get("content-length", "0"))
        self.body = self.rfile.read(length)
        if len(self.body) < length:  # the client went away in the middle
            return
        self.at = time.monotonic()
        fivetran.requests.append(self)
        fivetran.show(f"> {self.command} https://{HOST}{self.path}\n> {self.body!r}")
        if fivetran.misbehave("answer", self):
            self.close_connection = True
            return
        status, code, content = fivetran.answer(self)
        self.sync = "started" if status == 200 else "refused"
        key = "message" if isinstance(content, str) else "data"
        answer = json.dumps({"code": code, key: content})
        fivetran.show(f"< HTTP {status}\n< {answer}")
        request_id = {"X-Request-Id": uuid.uuid4().hex}
        self.connection.sendall(http_answer(status, answer.encode(), request_id))

    do_GET = do_POST = do_PATCH = respond


def _show(lines):
    """Print to stderr, in one piece."""
    with suppress(OSError):  # nobody may read it any more, as with `2>&1 | head -1`
        os.write(2, f"{lines}\n".encode())


def main(command):
    """Run the command against a local Fivetran and return its exit code."""
    if not command:
        sys.exit(__doc__)
    processes, early = [], []

    def pass_on(number, _frame):
        (processes[0].send_signal if processes else early.append)(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, pass_on)  # the terminal was closed
    # Ctrl-C reaches the command too, and the command says what comes of it.
    signal.signal(signal.SIGINT, lambda *_: None)
    inputs = {name: os.environ.get(name, "").strip() or INPUTS[name] for name in INPUTS}
    with FakeFivetran(inputs, show=_show) as fivetran:
        environment = fivetran.environment({**os.environ, **inputs})
        environment["https_proxy"] = fivetran.proxy_url  # curl reads this one first
        environment["PS1"] = "fake Fivetran $ "  # the prompt of sh
        name = "SHIPYARD_ARTIFACTS_DIRECTORY"
        if not environment.get(name, "").strip():
            folder = environment[name] = os.path.dirname(fivetran.ca_bundle)
            _show(f"Files go to {folder}, removed at the end; set {name} to keep them.")
        try:
            processes.append(subprocess.Popen(command, env=environment))
        except OSError as error:  # mistyped, or in another folder
            return f"{command[0]}: {error.strerror}"
        for number in early:
            pass_on(number, None)
        code = processes[0].wait()
        return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
