"""Ways in which a network and a server misbehave, for FakeFivetran.faults."""

import socket
import ssl
import struct
import time

from fake_fivetran import Fault, http_answer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SUCCESS = b'{"code": "Success", "message": "on its way"}'
REFUSAL = b'{"code": "Refusal", "message": "No, says Fivetran."}'
HTML = b"<!DOCTYPE html><title>Sign in to Wi-Fi</title>"


def answer(status, headers=None, body=None):
    """Answer with this status, as Fivetran itself does."""
    body = body or (SUCCESS if status == 200 else REFUSAL)
    sync = "started" if status == 200 else "unclear"
    if 400 <= status < 500:
        sync = "refused"
    return send(http_answer(status, body, headers), sync=sync)


def page(status, body=HTML, headers=None):
    """Answer in Fivetran's place."""
    return send(http_answer(status, body, headers))


def send(data, stage="answer", sync="unclear"):
    """Send these bytes, in place of a handshake once it has begun, and close."""

    def act(sock):
        if stage == "handshake":
            sock.recv(65536)
        sock.sendall(data)

    return Fault(stage, act, sync)


def close(stage):
    """Close the connection without a word."""
    return Fault(stage, lambda sock: None)


def reset(stage):
    """Reset the connection."""

    def act(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if isinstance(sock, ssl.SSLSocket):
            sock = socket.socket(fileno=sock.detach())
        sock.close()

    return Fault(stage, act)


def stall(stage):
    """Send nothing for as long as the client waits."""

    def act(sock):
        while sock.recv(65536):
            pass

    return Fault(stage, act)


def pour(begin, block, pause=0):
    """Send a beginning, then a block with a pause of seconds, until the client goes."""

    def act(sock):
        sock.sendall(begin)
        while True:
            sock.sendall(block)
            time.sleep(pause)

    return Fault("answer", act)


def after(action, fault):
    """Do something, then misbehave like this."""
    return fault._replace(act=lambda sock: (action(), fault.act(sock)))
