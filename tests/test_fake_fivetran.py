"""The local Fivetran behaves as the documented one, to any client."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from conftest import API_KEY, API_SECRET, CONNECTOR_ID, PATIENCE, execute

if TYPE_CHECKING:
    from fake_fivetran import FakeFivetran

DETAILS = f"/v1/connections/{CONNECTOR_ID}"
SYNC = f"{DETAILS}/sync"
JSON = {"Accept": "application/json;version=2", "Content-Type": "application/json"}

# In the order of the calls: to force is what stops a running sync.
CALLS: list[tuple[int, str, str, dict[str, Any]]] = [
    (401, "POST", SYNC, {"auth": (API_KEY, "x")}),
    (404, "POST", "/v1/connections/unknown/sync", {}),
    (404, "POST", f"/v1/connectors/{CONNECTOR_ID}/force", {}),
    (405, "GET", SYNC, {}),
    (406, "POST", SYNC, {"headers": {"Accept": "application/json;version=3"}}),
    (
        415,
        "POST",
        SYNC,
        {"headers": {"Accept": JSON["Accept"]}, "data": {"force": "1"}},
    ),
    (400, "POST", SYNC, {"data": b"{"}),
    (400, "POST", SYNC, {"json": {"force": "true"}}),
    (200, "POST", SYNC, {}),
    (409, "POST", SYNC, {"json": {"force": False}}),
    (200, "POST", SYNC, {"json": {"force": True}}),
    (200, "GET", DETAILS, {}),
]


def test_answers_are_those_documented(fivetran: FakeFivetran) -> None:
    for status, method, path, options in CALLS:
        answer = requests.request(
            method,
            f"https://api.fivetran.com{path}",
            proxies={"https": fivetran.proxy_url},
            verify=fivetran.ca_bundle,
            timeout=PATIENCE,
            **{"auth": (API_KEY, API_SECRET), "headers": JSON, **options},
        )
        assert answer.status_code == status
        assert (answer.json()["code"] == "Success") == (status == 200)
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 2
    assert answer.json()["data"]["status"]["sync_state"] == "syncing"


def test_no_other_host_is_behind_the_proxy(fivetran: FakeFivetran) -> None:
    proxies = {"https": fivetran.proxy_url}
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        requests.get("https://example.com", proxies=proxies, timeout=PATIENCE)


# As a program ----------------------------------------------------------------------------


def wrap(*command: str, **variables: str) -> Any:
    program = Path(__file__).with_name("fake_fivetran.py")
    environment = {"PATH": os.environ["PATH"], **variables}
    return execute([sys.executable, program, *command], env=environment)


def test_the_command_gets_what_it_needs_and_keeps_what_the_user_has_set(
    tmp_path: Path,
) -> None:
    theirs = {"NO_PROXY": "*", "https_proxy": "http://x", "FIVETRAN_API_KEY": "mine"}
    process = wrap("env", **theirs, TMPDIR=str(tmp_path))
    variables = dict(line.split("=", 1) for line in process.stdout.splitlines())
    assert variables["FIVETRAN_API_KEY"] == "mine"
    assert variables["FIVETRAN_CONNECTOR_ID"]
    assert variables["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert variables["REQUESTS_CA_BUNDLE"].endswith("ca.pem")
    assert not {"NO_PROXY", "https_proxy"} & set(variables)
    folder = variables["SHIPYARD_ARTIFACTS_DIRECTORY"]
    assert f"Artifacts go to {folder}\n" in process.stderr
    assert Path(folder).parent == tmp_path
    process = wrap("env", SHIPYARD_ARTIFACTS_DIRECTORY="x")
    assert "SHIPYARD_ARTIFACTS_DIRECTORY=x\n" in process.stdout


def test_the_exit_code_is_that_of_the_command() -> None:
    assert wrap("sh", "-c", "kill -TERM $$").returncode == 143
    assert wrap().returncode == 2
    process = wrap("/no/such/command")
    assert process.returncode == 127
    assert "cannot run /no/such/command: No such file or directory\n" in process.stderr


def test_the_exchange_is_shown_without_secrets() -> None:
    call = "requests.post('https://api.fivetran.com/x', auth=('kkk', 'sss'))"
    process = wrap(sys.executable, "-c", f"import requests; {call}")
    assert "> POST https://api.fivetran.com/x" in process.stderr
    assert "< HTTP/1.1 401" in process.stderr
    assert "a2trOnNzcw" not in process.stderr
