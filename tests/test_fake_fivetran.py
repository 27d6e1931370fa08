"""The local Fivetran behaves as the documented one, to any client."""

import os
import sys
from pathlib import Path

import requests
from conftest import API_KEY, API_SECRET, CONNECTOR_ID, PATIENCE, execute

DETAILS = f"/v1/connections/{CONNECTOR_ID}"
SYNC = f"{DETAILS}/sync"
ACCEPT = {"Accept": "application/json;version=2"}
JSON = {**ACCEPT, "Content-Type": "application/json"}

# In the order of the calls: to force is what stops a running sync.
CALLS = [
    (401, "POST", SYNC, {"auth": (API_KEY, "x")}),
    (404, "POST", "/v1/connections/unknown/sync", {}),
    (404, "POST", f"/v1/connectors/{CONNECTOR_ID}/force", {}),
    (405, "GET", SYNC, {}),
    (406, "POST", SYNC, {"headers": {"Accept": "application/json;version=3"}}),
    (415, "POST", SYNC, {"headers": ACCEPT, "data": {"force": "true"}}),
    (400, "POST", SYNC, {"data": b"{"}),
    (400, "POST", SYNC, {"json": {"force": "true"}}),
    (200, "POST", SYNC, {}),
    (409, "POST", SYNC, {"json": {"force": False}}),
    (200, "POST", SYNC, {"json": {"force": True}}),
    (200, "GET", DETAILS, {}),
]


def test_answers_are_those_documented(fivetran):
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


def wrap(*command, **variables):
    """Run a command as a user does, against the local Fivetran as a program."""
    program = Path(__file__).with_name("fake_fivetran.py")
    environment = {"PATH": os.environ["PATH"], **variables}
    return execute([sys.executable, program, *command], env=environment)


def test_the_command_gets_what_it_needs_and_keeps_what_the_user_has_set(tmp_path):
    process = wrap("env", TMPDIR=str(tmp_path), NO_PROXY="*", FIVETRAN_API_KEY="mine")
    assert "FIVETRAN_API_KEY=mine\n" in process.stdout
    assert "NO_PROXY" not in process.stdout
    folder = process.stderr.removeprefix("Artifacts go to ").strip()
    assert Path(folder).parent == tmp_path
    assert f"SHIPYARD_ARTIFACTS_DIRECTORY={folder}\n" in process.stdout
    process = wrap("env", SHIPYARD_ARTIFACTS_DIRECTORY="x")
    assert "SHIPYARD_ARTIFACTS_DIRECTORY=x\n" in process.stdout


def test_the_exit_code_is_that_of_the_command():
    assert wrap("sh", "-c", "kill -TERM $$").returncode == 143
    process = wrap("/no/such/command")
    assert process.returncode == 127
    assert "cannot run /no/such/command: No such file or directory\n" in process.stderr
