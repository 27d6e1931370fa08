"""The local Fivetran behaves as the documented one, to any client."""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from conftest import API_KEY, API_SECRET, CONNECTOR_ID, execute
from fake_fivetran import FakeFivetran

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., requests.Response]

FAKE = Path(__file__).with_name("fake_fivetran.py")
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
            timeout=30,
            **{"auth": (API_KEY, API_SECRET), "headers": JSON, **options},
        )

    return send


def test_a_sync_is_started_and_told_as_documented(
    ask: Ask, fivetran: FakeFivetran
) -> None:
    answer = ask("POST", SYNC, json={"force": True})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"]
    message = (
        f"Sync has been successfully triggered for connection with id '{CONNECTOR_ID}'"
    )
    assert answer.json() == {"code": "Success", "message": message}
    assert fivetran.connections[CONNECTOR_ID].syncing


def test_force_is_what_stops_a_running_sync(ask: Ask, fivetran: FakeFivetran) -> None:
    syncs = fivetran.connections[CONNECTOR_ID].syncs
    assert ask("POST", SYNC, json={"force": False}).status_code == 200
    for body in ({"force": False}, {}):
        assert ask("POST", SYNC, json=body).status_code == 409
    assert len(syncs) == 1
    assert ask("POST", SYNC, json={"force": True}).status_code == 200
    assert len(syncs) == 2


def test_details_tell_how_syncs_ended(ask: Ask, fivetran: FakeFivetran) -> None:
    connection = fivetran.connections[CONNECTOR_ID]
    first = ask("GET", DETAILS).json()
    assert first["code"] == "Success"
    assert first["data"]["id"] == CONNECTOR_ID
    assert first["data"]["succeeded_at"] is first["data"]["failed_at"] is None
    assert first["data"]["status"]["sync_state"] == "scheduled"
    connection.start()
    assert ask("GET", DETAILS).json()["data"]["status"]["sync_state"] == "syncing"
    connection.finish(succeeded=False)
    second = ask("GET", DETAILS).json()["data"]
    assert second["failed_at"].endswith("Z")
    assert second["succeeded_at"] is None
    connection.start()
    connection.finish()
    third = ask("GET", DETAILS).json()["data"]
    assert third["succeeded_at"] > third["failed_at"] == second["failed_at"]


def test_a_sync_ends_by_itself_where_it_is_given_a_time(
    ask: Ask, fivetran: FakeFivetran
) -> None:
    connection = fivetran.connections[CONNECTOR_ID]
    connection.sync_seconds = 0.0
    assert ask("POST", SYNC, json={"force": True}).status_code == 200
    details = ask("GET", DETAILS).json()["data"]
    assert details["status"]["sync_state"] == "scheduled"
    assert details["succeeded_at"]


REFUSALS: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "no credentials": (401, "POST", SYNC, {"auth": None}),
    "wrong secret": (401, "POST", SYNC, {"auth": (API_KEY, "x")}),
    "Base64 key": (401, "POST", SYNC, {"auth": ("YTpi", API_SECRET)}),
    "unknown connection": (404, "POST", "/v1/connections/other/sync", {}),
    "unknown path": (404, "GET", "/v1/nothing", {}),
    "deprecated path": (404, "POST", f"/v1/connectors/{CONNECTOR_ID}/force", {}),
    "wrong method": (405, "GET", SYNC, {}),
    "other wrong method": (405, "DELETE", DETAILS, {}),
    "nothing acceptable": (
        406,
        "POST",
        SYNC,
        {"headers": {**JSON, "Accept": "text/xml"}},
    ),
    "form": (415, "POST", SYNC, {"headers": {}, "data": {"force": "true"}}),
    "no content type": (415, "POST", SYNC, {"headers": {}, "data": b"{}"}),
    "broken JSON": (400, "POST", SYNC, {"data": b"{"}),
    "a list": (400, "POST", SYNC, {"json": [True]}),
    "force as a word": (400, "POST", SYNC, {"json": {"force": "true"}}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_those_documented(
    ask: Ask, fivetran: FakeFivetran, name: str
) -> None:
    status, method, path, options = REFUSALS[name]
    answer = ask(
        method,
        path,
        **{"json": {"force": True}, **options} if options == {} else options,
    )
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message"}
    assert not fivetran.connections[CONNECTOR_ID].syncing


def test_a_connection_serves_many_requests(fivetran: FakeFivetran) -> None:
    context = ssl.create_default_context(cafile=str(fivetran.ca_bundle))
    host, port = fivetran.proxy_url.removeprefix("http://").split(":")
    client = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
    client.set_tunnel("api.fivetran.com", 443)
    for method in ("GET", "HEAD", "POST", "GET"):
        client.request(method, "/v1/anything", body=b"{}")
        answer = client.getresponse()
        assert answer.status == 401
        assert bool(answer.read()) == (method != "HEAD")
    assert len(fivetran.tunnels) == 1


def test_no_other_host_is_behind_the_proxy(fivetran: FakeFivetran) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        requests.get(
            "https://example.com", proxies={"https": fivetran.proxy_url}, timeout=30
        )


# As a program ----------------------------------------------------------------------------


def wrap(*command: str, **variables: str) -> Any:
    environment = {"PATH": os.environ["PATH"], **variables}
    return execute([sys.executable, FAKE, *command], env=environment)


def test_the_command_gets_what_it_needs_in_its_environment() -> None:
    names = ("FIVETRAN_API_KEY", "FIVETRAN_API_SECRET", "FIVETRAN_CONNECTOR_ID")
    code = f"import os; print([bool(os.environ[name]) for name in {names}])"
    process = wrap(sys.executable, "-c", code, NO_PROXY="*", https_proxy="http://x")
    assert process.stdout == "[True, True, True]\n"
    process = wrap("env", NO_PROXY="*", https_proxy="http://x", FIVETRAN_API_KEY="mine")
    assert "FIVETRAN_API_KEY=mine\n" in process.stdout
    assert "HTTPS_PROXY=http://127.0.0.1:" in process.stdout
    assert "REQUESTS_CA_BUNDLE=/" in process.stdout
    assert "NO_PROXY" not in process.stdout
    assert "https_proxy" not in process.stdout


@pytest.mark.parametrize("code", [0, 1, 2, 200, 249, 255])
def test_the_exit_code_is_that_of_the_command(code: int) -> None:
    assert wrap("sh", "-c", f"exit {code}").returncode == code


def test_a_command_that_is_killed_is_told_as_shells_do() -> None:
    assert wrap("sh", "-c", "kill -TERM $$").returncode == 143


def test_a_command_that_is_not_there_is_told() -> None:
    process = wrap("no-such-command")
    assert process.returncode == 127
    assert process.stderr == "cannot run no-such-command: No such file or directory\n"


def test_without_a_command_it_says_how_it_is_used() -> None:
    process = wrap()
    assert process.returncode == 2
    assert (
        "python tests/fake_fivetran.py python fivetran_execute_sync.py"
        in process.stderr
    )


def test_the_exchange_is_shown_without_secrets() -> None:
    call = "import requests; requests.post('https://api.fivetran.com/x', auth=('kkk', 'sss'))"
    process = wrap(sys.executable, "-c", call)
    assert "> POST https://api.fivetran.com/x" in process.stderr
    assert "< HTTP/1.1 401 Unauthorized" in process.stderr
    assert "a2trOnNzcw" not in process.stderr
