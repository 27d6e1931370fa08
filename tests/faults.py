"""Ways in which a network and a server misbehave, for FakeFivetran.faults."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

from fake_fivetran import Fault, http_answer

if TYPE_CHECKING:
    from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SUCCESS = '{"code": "Success", "message": "on its way"}'
REFUSAL = '{"code": "Refusal", "message": "What Fivetran says."}'
HTML = "<!DOCTYPE html><title>Sign in to Wi-Fi</title>"


def answer(status: int, headers: dict[str, str] | None = None) -> Fault:
    """Answer with this status, and as Fivetran itself would."""
    body = SUCCESS if status == 200 else REFUSAL
    return send(http_answer(status, body, headers or {}), status)


def page(status: int, body: str = HTML, headers: dict[str, str] | None = None) -> Fault:
    """Answer in Fivetran's place."""
    return send(http_answer(status, body, headers or {}))


def send(data: bytes, status: int | None = None, stage: str = "answer") -> Fault:
    """Send these bytes and close the connection."""
    return Fault(stage, lambda sock: sock.sendall(data), status)


def close(stage: str) -> Fault:
    """Close the connection without a word."""
    return Fault(stage, lambda sock: None)


def reset(stage: str) -> Fault:
    """Reset the connection."""

    def act(sock: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if isinstance(sock, ssl.SSLSocket):
            sock = socket.socket(fileno=sock.detach())
        sock.close()

    return Fault(stage, act)


def stall(
    stage: str, begin: bytes = b"", then: Callable[[], object] = lambda: None
) -> Fault:
    """Send a beginning, then nothing for as long as the client waits; call `then`."""

    def act(sock: Any) -> None:
        sock.sendall(begin)
        then()
        while sock.recv(65536):
            pass

    return Fault(stage, act)


def pour(begin: bytes, block: bytes, pause: float = 0, count: int = 600) -> Fault:
    """Send a beginning, then a block many times, with a pause of seconds after each."""

    def act(sock: Any) -> None:
        sock.sendall(begin)
        for _ in range(count):
            sock.sendall(block)
            time.sleep(pause)

    return Fault("answer", act)


def after(action: Callable[[], object], fault: Fault) -> Fault:
    """Do something, then misbehave like this."""
    return fault._replace(act=lambda sock: (action(), fault.act(sock)))
