"""Ways in which a network and a server misbehave, for FakeFivetran.faults."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fake_fivetran import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = {"Content-Type": "application/json"}


def reply(
    status: int, body: str | bytes = b"", headers: dict[str, str] | None = None
) -> Fault:
    """Answer with this instead of what the API would."""
    body = body.encode() if isinstance(body, str) else body
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Odd"
    lines = {
        **JSON,
        "Content-Length": str(len(body)),
        "X-Request-Id": "r-1",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return send(f"HTTP/1.1 {status} {phrase}\r\n{head}\r\n".encode() + body, status)


def send(data: bytes, status: int | None = None, stage: str = "answer") -> Fault:
    """Send these bytes and close the connection; `status` is that of a whole answer."""
    return Fault(stage, lambda sock: sock.sendall(data), status)


def pour(head: bytes, block: bytes, count: int) -> Fault:
    """Send a head, then a block many times, for as long as it is taken."""

    def act(sock: Any) -> None:
        sock.sendall(head)
        for _ in range(count):
            sock.sendall(block)

    return Fault("answer", act)


def send_and_stall(data: bytes) -> Fault:
    """Send these bytes, then nothing more."""

    def act(sock: Any) -> None:
        sock.sendall(data)
        wait_until_closed(sock)

    return Fault("answer", act)


def close(stage: str) -> Fault:
    """Close the connection without a word."""
    return Fault(stage, lambda sock: None)


def reset(stage: str) -> Fault:
    """Reset the connection."""

    def act(sock: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bare = (
            socket.socket(fileno=sock.detach())
            if isinstance(sock, ssl.SSLSocket)
            else sock
        )
        bare.close()

    return Fault(stage, act)


def stall(stage: str, then: Callable[[], None] = lambda: None) -> Fault:
    """Say nothing for as long as the client waits; call `then` first."""

    def act(sock: Any) -> None:
        then()
        wait_until_closed(sock)

    return Fault(stage, act)


def trickle(head: bytes, byte: bytes) -> Fault:
    """Send a head, then a byte every now and then, and never come to an end."""

    def act(sock: Any) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(byte)
            time.sleep(0.05)

    return Fault("answer", act)


def wait_until_closed(sock: Any) -> None:
    while sock.recv(65536):
        pass
