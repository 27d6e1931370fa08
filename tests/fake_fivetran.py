#!/usr/bin/env python3
"""A local stand-in for Fivetran, for the tests and for people without an account.

    .venv/bin/python tests/fake_fivetran.py .venv/bin/python fivetran_execute_sync.py

starts it, runs the command against it, shows the requests and responses on stderr and
exits with the command's exit code. Any command of the README can be rehearsed like
this, or in a shell, where all commands meet the same local Fivetran:

    .venv/bin/python tests/fake_fivetran.py sh

A sync that it has started succeeds after five seconds. The command finds it through
HTTPS_PROXY, trusts it through REQUESTS_CA_BUNDLE, and gets credentials and a connector
ID where you have set none. (A command that clears its environment, like `env -i`, loses
all of this and reaches the real Fivetran.)

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
from dataclasses import dataclass, field
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
    "FIVETRAN_API_SECRET": "local_api_secret",
    "FIVETRAN_CONNECTOR_ID": "speak_inexpensive",
}
# What is played, and the fields that a body may have, with their values.
PLAYED = {
    ("GET", None): {},
    ("PATCH", None): {"schedule_type": '"auto" or "manual"', "paused": "true or false"},
    ("POST", "/sync"): {"force": "true or false"},
}


@dataclass
class Connection:
    """A connection (connector) and its syncs; each one stops the one before it."""

    id: str
    sync_seconds: float = 5.0
    syncs: list[datetime] = field(default_factory=list)  # when each was started
    schedule_type: str = "auto"
    paused: bool = False

    def start(self):
        self.syncs.append(datetime.now(timezone.utc))

    def details(self):
        now = datetime.now(timezone.utc)
        ends = [sync + timedelta(seconds=self.sync_seconds) for sync in self.syncs]
        stops = [*self.syncs[1:], now]
        succeeded = [end for end, stop in zip(ends, stops) if end <= stop]
        idle = "paused" if self.paused else "scheduled"
        syncing = any(end > now for end in ends[-1:])
        return {
            "id": self.id,
            "succeeded_at": f"{succeeded[-1]:%FT%T.%fZ}" if succeeded else None,
            "failed_at": None,
            "paused": self.paused,
            "schedule_type": self.schedule_type,
            "status": {"sync_state": "syncing" if syncing else idle},
        }


@dataclass
class Request:
    """A request that arrived whole."""

    method: str
    path: str
    headers: Any  # by their names, in upper or lower case
    body: bytes
    client: str = ""  # the user name that the client gave to the proxy
    sync: str = "unclear"  # or "started", or "refused": what the client was told
    at: float = field(default_factory=time.monotonic)


class Fault(NamedTuple):
    """A way to misbehave: `act` gets the socket at `stage`; it is closed afterwards."""

    stage: str  # "connect" (it has arrived), "handshake" (TLS is to begin), "answer"
    act: Any
    sync: str = "unclear"  # what becomes that of the request


class FakeFivetran:
    """The server, as a context manager; all its state can be read and set."""

    def __init__(self, inputs=INPUTS, certified_host=HOST, show=lambda line: None):
        *self.credentials, connector_id = inputs.values()
        self.connections = {connector_id: Connection(connector_id)}
        self.tunnels: list[str] = []  # where to, of every CONNECT
        self.requests: list[Request] = []
        self.faults: list[Fault] = []  # one for each connection to come
        self.show = show
        self.lock = threading.Lock()  # requests arrive at the same time
        self._folder = tempfile.TemporaryDirectory(prefix="fake_fivetran_")
        self.ca_bundle = os.path.join(self._folder.name, "ca.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_bundle)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified_host).configure_cert(self.tls)

    def __enter__(self):
        self._proxy = _Server(self, ("127.0.0.1", 0), _Proxy)
        self.proxy_url = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        return self

    def __exit__(self, *_):
        self._proxy.__exit__()
        self._folder.cleanup()

    def listen_directly(self, address, port):
        """Be at this address too, for clients that come without the proxy."""
        return _Server(self, (address, port), _Api)

    def environment(self, base):
        """Return base, so changed that a client in it meets this server, no other."""
        kept = {k: base[k] for k in base if not k.lower().endswith("_proxy")}
        bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        kept.update(dict.fromkeys(bundles, self.ca_bundle))
        return {**kept, "HTTPS_PROXY": self.proxy_url}

    def misbehave(self, stage, sock, request=None):
        """Let the next fault act if its stage has come; return whether it did."""
        with self.lock:
            if not (self.faults and self.faults[0].stage == stage):
                return False
            fault = self.faults.pop(0)
        if request:
            request.sync = fault.sync
        fault.act(sock)
        return True

    def answer(self, request):
        """Return status and content of the API's answer, with checks in its order."""
        method, path, headers = request.method, request.path, request.headers
        token = base64.b64encode(":".join(self.credentials).encode()).decode()
        if headers.get("authorization") != f"Basic {token}":
            return _refuse(401, "Invalid authorization credentials", "AuthFailed")
        if "transfer-encoding" in headers:
            return _refuse(411)
        route = re.fullmatch(r"/v1/connections/([^/?]+)(/sync)?", path)
        fields = PLAYED.get((method, route[2])) if route else None
        if fields is None:
            message = f"The local Fivetran does not play {method} {path}"
            return _refuse(405 if route else 404, message)
        # The documentation has it with and without a space, and requires none of it.
        accepted = r"application/json(; ?version=[12])?|\*/\*"
        if not re.fullmatch(accepted, headers.get("accept", "*/*")):
            return _refuse(406)
        if request.body and "application/json" not in headers.get("content-type", ""):
            return _refuse(415)
        connection = self.connections.get(route[1])
        if not connection:
            message = f"Connection with id '{route[1]}' doesn't exist"
            return _refuse(404, message, "NotFound_Connection")
        try:
            body = json.loads(request.body or "{}")
            wrong = [k for k, v in body.items() if json.dumps(v) not in fields[k]]
        except (ValueError, AttributeError, KeyError):
            wrong = True
        if wrong or (method == "PATCH" and not body):
            message = ", ".join(f"{name}: {values}" for name, values in fields.items())
            return _refuse(400, f"The local Fivetran takes {message}", "InvalidInput")
        if method == "POST":
            state = connection.details()["status"]["sync_state"]
            if state == "syncing" and not body.get("force"):
                return _refuse(409, "Sync is already in progress")
            connection.start()
            message = "Sync has been successfully triggered for connection with id"
            return 200, {"code": "Success", "message": f"{message} '{connection.id}'"}
        vars(connection).update(body)
        content = {"code": "Success", "data": connection.details()}
        if method == "PATCH":
            # The documentation has only "Operation performed."; Fivetran says this.
            content["message"] = "Connection has been updated"
        return 200, content


def _refuse(status, message=None, code=None):
    """Return status and content of a refusal, by default those of its status."""
    code = code or responses[status].replace(" ", "")
    return status, {"code": code, "message": message or f"HTTP {status}"}


def http_answer(status, body, headers=None):
    """Return an answer as it goes over the wire."""
    usual = {"Content-Type": "application/json", "Content-Length": len(body)}
    head = f"HTTP/1.1 {status} {responses.get(status, 'Odd')}\r\n"
    for name, value in {**usual, **(headers or {})}.items():
        head += f"{name}: {value}\r\n"
    return f"{head}\r\n".encode() + body


class _Server(ThreadingTCPServer):
    """Serves in the background, from its making to the end of its `with`."""

    allow_reuse_address = True
    daemon_threads = True  # a client that stays does not keep Python up
    request_queue_size = 128

    def __init__(self, fivetran, address, handler):
        self.fivetran = fivetran
        super().__init__(address, handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that goes away in the middle is no news, any other error is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Proxy(BaseHTTPRequestHandler):
    """The CONNECT proxy, which forwards nothing to anywhere."""

    error_message_format = f"%(message)s. This is a CONNECT proxy for {HOST}:443.\n"

    def do_CONNECT(self):
        self.close_connection = True
        fivetran = self.server.fivetran
        fivetran.tunnels.append(self.path)
        if self.path != f"{HOST}:443":
            self.send_error(502, f"Only {HOST}:443 is behind this proxy")
            return
        if fivetran.misbehave("connect", self.connection):
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if fivetran.misbehave("handshake", self.connection):
            return
        token = self.headers.get("Proxy-Authorization", "").partition(" ")[2]
        client = base64.b64decode(token).decode().partition(":")[0]
        _Api(self.connection, self.client_address, self.server, client)


class _Api(BaseHTTPRequestHandler):
    """The API over TLS, for one client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, connection, address, server, client=""):
        self.client = client
        with server.fivetran.tls.wrap_socket(connection, server_side=True) as tls:
            super().__init__(tls, address, server)  # which serves it to its end

    def respond(self):
        fivetran = self.server.fivetran
        if "transfer-encoding" in self.headers:  # read past a body that will be refused
            while len(self.rfile.read(int(self.rfile.readline() or b"0", 16) + 2)) > 2:
                pass
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:  # the client went away in the middle
            return
        request = Request(self.command, self.path, self.headers, body, self.client)
        fivetran.requests.append(request)
        shown = ("Accept", "Content-Type", "User-Agent")  # nothing secret
        head = "".join(f"{name}: {self.headers.get(name, '')}\n> " for name in shown)
        text = body.decode(errors="replace")
        fivetran.show(f"> {self.command} https://{HOST}{self.path}\n> {head}{text}")
        if fivetran.misbehave("answer", self.connection, request):
            self.close_connection = True
            return
        with fivetran.lock:
            status, content = fivetran.answer(request)
        done = "started" if request.method == "POST" else "unclear"
        request.sync = "refused" if status >= 400 else done
        request_id = {"X-Request-Id": uuid.uuid4().hex}
        answer = http_answer(status, json.dumps(content).encode(), request_id)
        fivetran.show("< " + answer.decode().replace("\r\n", "\n< "))
        self.connection.sendall(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = respond


def _show(lines):
    """Print to stderr, in one piece as other threads and the command print, too."""
    try:  # without sys.stderr, whose lock a thread that lives to the end might hold
        os.write(2, f"{lines}\n".encode(errors="surrogateescape"))
    except OSError:  # nobody reads it any more, as with `2>&1 | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def main(command):
    """Run the command against a local Fivetran and return its exit code."""
    if not command or command[0] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stdout if command else sys.stderr)
        return 0 if command else 2
    early = []  # SIGTERM that came before the command ran
    signal.signal(signal.SIGTERM, lambda number, _: early.append(number))
    # Ctrl-C reaches the command too, and the command says what comes of it.
    signal.signal(signal.SIGINT, lambda *_: None)
    inputs = {name: os.environ.get(name, "").strip() or INPUTS[name] for name in INPUTS}
    with FakeFivetran(inputs, show=_show) as fivetran:
        environment = fivetran.environment({**os.environ, **inputs})
        environment["https_proxy"] = fivetran.proxy_url  # curl reads this one first
        name = "SHIPYARD_ARTIFACTS_DIRECTORY"
        if not environment.get(name, "").strip():
            folder = environment[name] = os.path.dirname(fivetran.ca_bundle)
            _show(f"Artifacts: {folder}, removed at the end; set {name} to keep them.")
        try:
            process = subprocess.Popen(command, env=environment)
        except OSError as error:
            _show(f"cannot run {command[0]}: {error.strerror}")
            return 127
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        if early:
            process.terminate()
        code = process.wait()
        return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
