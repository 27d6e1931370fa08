"""The local Fivetran behaves as the documented one, to any client."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from conftest import API_KEY, API_SECRET, CONNECTOR_ID, PATIENCE, UNKNOWN_ID, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_fivetran import FakeFivetran

    Ask = Callable[..., requests.Response]

DETAILS = f"/v1/connections/{CONNECTOR_ID}"
SYNC = f"{DETAILS}/sync"
JSON = {"Accept": "application/json;version=2", "Content-Type": "application/json"}


@pytest.fixture
def ask(fivetran: FakeFivetran) -> Ask:
    """Send a request as a client does that nobody here wrote: plain `requests`."""

    def send(method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(
            method,
            f"https://api.fivetran.com{path}",
            proxies={"https": fivetran.proxy_url},
            verify=str(fivetran.ca_bundle),
            timeout=PATIENCE,
            **{"auth": (API_KEY, API_SECRET), "headers": JSON, **options},
        )

    return send


def test_force_is_what_stops_a_running_sync(ask: Ask, fivetran: FakeFivetran) -> None:
    connection = fivetran.connections[CONNECTOR_ID]
    answer = ask("POST", SYNC)  # without a body: force is false
    assert (answer.status_code, answer.json()["code"]) == (200, "Success")
    assert answer.headers["X-Request-Id"]
    assert ask("POST", SYNC, json={"force": False}).status_code == 409
    assert len(connection.syncs) == 1
    assert ask("POST", SYNC, json={"force": True}).status_code == 200
    assert len(connection.syncs) == 2
    connection.sync_seconds = 0.0  # from here on, syncs end by themselves
    assert ask("POST", SYNC).status_code == 200


REFUSALS: list[tuple[int, str, str, dict[str, Any]]] = [
    (401, "POST", SYNC, {"auth": (API_KEY, "x")}),
    (404, "POST", f"/v1/connections/{UNKNOWN_ID}/sync", {}),
    (404, "POST", f"/v1/connectors/{CONNECTOR_ID}/force", {}),
    (405, "GET", SYNC, {}),
    (406, "POST", SYNC, {"headers": {**JSON, "Accept": "text/xml"}}),
    (406, "POST", SYNC, {"headers": {"Accept": "application/json;version=3"}}),
    (415, "POST", SYNC, {"headers": {}, "data": {"force": "true"}}),
    (400, "POST", SYNC, {"data": b"{"}),
    (400, "POST", SYNC, {"json": {"force": "true"}}),
]


@pytest.mark.parametrize(("status", "method", "path", "options"), REFUSALS)
def test_refusals_are_those_documented(
    ask: Ask,
    fivetran: FakeFivetran,
    status: int,
    method: str,
    path: str,
    options: dict[str, Any],
) -> None:
    answer = ask(method, path, **options)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message"}
    assert not fivetran.connections[CONNECTOR_ID].syncs


def test_a_client_that_waits_to_continue_is_answered_at_once(
    fivetran: FakeFivetran,
) -> None:
    address = ("127.0.0.1", int(fivetran.proxy_url.rpartition(":")[2]))
    context = ssl.create_default_context(cafile=str(fivetran.ca_bundle))
    with socket.create_connection(address, PATIENCE) as bare:
        bare.sendall(b"CONNECT api.fivetran.com:443 HTTP/1.1\r\n\r\n")
        assert b" 200 " in bare.recv(1024)
        with context.wrap_socket(bare, server_hostname="api.fivetran.com") as tls:
            expect = b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            tls.sendall(b"POST / HTTP/1.1\r\n" + expect)
            assert b" 100 " in tls.recv(1024)  # before the body
            tls.sendall(b"{}")
            assert b" 401 " in tls.recv(1024)


def test_no_other_host_is_behind_the_proxy(fivetran: FakeFivetran) -> None:
    proxies = {"https": fivetran.proxy_url}
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        requests.get("https://example.com", proxies=proxies, timeout=PATIENCE)


# As a program ----------------------------------------------------------------------------


def wrap(*command: str, **variables: str) -> Any:
    program = Path(__file__).with_name("fake_fivetran.py")
    environment = {"PATH": os.environ["PATH"], **variables}
    return execute([sys.executable, program, *command], env=environment)


def test_the_command_gets_what_it_needs_in_its_environment() -> None:
    theirs = {"NO_PROXY": "*", "https_proxy": "http://x", "FIVETRAN_API_KEY": "mine"}
    out = wrap("env", **theirs).stdout
    variables = dict(line.split("=", 1) for line in out.splitlines())
    assert variables["FIVETRAN_API_KEY"] == "mine"
    assert variables["FIVETRAN_API_SECRET"]
    assert variables["FIVETRAN_CONNECTOR_ID"]
    assert variables["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert variables["https_proxy"] == variables["HTTPS_PROXY"]
    assert variables["REQUESTS_CA_BUNDLE"].endswith("ca.pem")
    assert "NO_PROXY" not in variables


def test_the_exit_code_is_that_of_the_command() -> None:
    assert wrap("sh", "-c", "kill -TERM $$").returncode == 143
    assert wrap().returncode == 2
    process = wrap("/no/such/command")
    assert process.returncode == 127
    assert process.stderr == "cannot run /no/such/command: No such file or directory\n"


def test_the_exchange_is_shown_without_secrets() -> None:
    call = "requests.post('https://api.fivetran.com/x', auth=('kkk', 'sss'))"
    process = wrap(sys.executable, "-c", f"import requests; {call}")
    assert "> POST https://api.fivetran.com/x" in process.stderr
    assert "< HTTP/1.1 401" in process.stderr
    assert "a2trOnNzcw" not in process.stderr
