"""Ways in which a network and a server misbehave, for FakeFivetran.faults."""

import itertools
import time

from fake_fivetran import Fault, http_answer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SUCCESS = b'{"code": "Success", "message": "on its way"}'
REFUSAL = b'{"code": "Refusal", "message": "No, says Fivetran."}'
HTML = b"<!DOCTYPE html><title>Sign in to Wi-Fi</title>"


def answer(status, headers=None, body=None):
    """Answer with this status, as Fivetran itself does."""
    sync = {2: "started", 4: "refused"}.get(status // 100, "unclear")
    body = body or (SUCCESS if sync == "started" else REFUSAL)
    return send(http_answer(status, body, headers), sync=sync)


def page(status, body=HTML, headers=None):
    """Answer in Fivetran's place."""
    return send(http_answer(status, body, headers))


def send(data, stage="answer", sync="unclear"):
    """Send these bytes, in place of a handshake once it has begun, and close."""
    hello = 65536 if stage == "handshake" else 0
    return Fault(stage, lambda sock: (sock.recv(hello), sock.sendall(data)), sync)


def close(stage):
    """Close the connection without a word."""
    return Fault(stage, lambda sock: None)


def stall(stage):
    """Send nothing for as long as the client waits."""
    return Fault(stage, lambda sock: [*iter(lambda: sock.recv(65536), b"")])


def trickle(begin, piece):
    """Send a beginning, then a piece every 50 ms until the client goes."""
    parts = itertools.chain([begin], itertools.repeat(piece))
    return Fault(
        "answer",
        lambda sock: [sock.sendall(part) or time.sleep(0.05) for part in parts],
    )


def after(action, fault):
    """Do something, then misbehave like this."""
    return fault._replace(act=lambda sock: (action(), fault.act(sock)))
