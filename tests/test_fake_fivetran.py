"""The local Fivetran behaves as the documented one, to any client."""

import os
import sys
from pathlib import Path

import pytest
import requests
from fake_fivetran import HOST, INPUTS
from harness import API_KEY, API_SECRET, CONNECTOR_ID, PATIENCE, execute

PROGRAM = Path(__file__).with_name("fake_fivetran.py")
DETAILS = f"/v1/connections/{CONNECTOR_ID}"
SYNC = f"{DETAILS}/sync"

# In the order of the calls: to force is what stops a running sync.
CALLS = [
    ("POST", SYNC, {"auth": (API_KEY, "x")}, "401 AuthFailed"),
    ("POST", "/v1/connections/unknown/sync", {}, "404 NotFound_Connection"),
    ("GET", "/v1/groups", {}, "404 NotFound: The local Fivetran does not play GET /v"),
    ("GET", SYNC, {}, "405 MethodNotAllowed: The local Fivetran does not play GET /v"),
    ("GET", DETAILS, {"headers": {"Accept": "text/html"}}, "406 NotAcceptable"),
    ("POST", SYNC, {"data": iter([b"{}", b"x" * 10**7])}, "411 LengthRequired"),
    ("POST", SYNC, {"data": "force=true"}, "415 UnsupportedMediaType"),
    ("POST", SYNC, {"json": {"force": "true"}}, "400 InvalidInput"),
    ("PATCH", DETAILS, {"json": {"id": "x", "paused": True}}, "400 InvalidInput"),
    ("PATCH", DETAILS, {"json": {}}, "400 InvalidInput"),
    ("PATCH", DETAILS, {"json": {"schedule_type": "manual"}}, "200 Success: Conn"),
    ("POST", SYNC, {}, "200 Success: Sync has been successfully triggered"),
    ("POST", SYNC, {"json": {"force": False}}, "409 Conflict"),
    ("POST", SYNC, {"json": {"force": True}}, "200 Success"),
]


def call(fivetran, method, path, **options):
    """Send a request to the API; return the status and the JSON of the answer."""
    usual = {"auth": (API_KEY, API_SECRET), "proxies": {"https": fivetran.proxy_url}}
    usual.update(verify=fivetran.ca_bundle, timeout=PATIENCE)
    reply = requests.request(method, f"https://{HOST}{path}", **{**usual, **options})
    return reply.status_code, reply.json()


def test_answers_are_those_documented(fivetran):
    reply = requests.post(fivetran.proxy_url, timeout=PATIENCE)
    assert reply.status_code == 501 and f" CONNECT proxy for {HOST}:443" in reply.text
    fivetran.connections[CONNECTOR_ID].sync_seconds = 3600
    for method, path, options, words in CALLS:
        status, content = call(fivetran, method, path, **options)
        assert f"{status} {content['code']}: {content['message']}".startswith(words)
    assert len(fivetran.connections[CONNECTOR_ID].syncs) == 2
    data = {"id": CONNECTOR_ID, "succeeded_at": None, "failed_at": None}
    data.update(paused=False, schedule_type="manual", status={"sync_state": "syncing"})
    for version in ("", ";version=1", ";version=2", "; version=2"):
        headers = {"Accept": f"application/json{version}"}
        got = call(fivetran, "GET", DETAILS, headers=headers)
        assert got == (200, {"code": "Success", "data": data})


@pytest.fixture
def play(tmp_path):
    """Run the program to its end; return exit code, stdout and stderr."""

    def play(*words, python=(sys.executable,), **variables):
        variables = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **variables}
        command = [*python, PROGRAM, *words]
        process = execute(command, env=variables, start_new_session=True)
        return process.returncode, process.stdout, process.stderr

    yield play
    assert not list(tmp_path.iterdir()), "left behind"


def test_the_command_gets_what_it_needs_and_keeps_what_the_user_has_set(play):
    name = "SHIPYARD_ARTIFACTS_DIRECTORY"
    command = ("sh", "-c", f'>"${name}/x" && env')
    _, out, err = play(*command, NO_PROXY="*", http_proxy="x", FIVETRAN_API_KEY="mine")
    got = dict(line.split("=", 1) for line in out.splitlines())
    assert got == {**got, **INPUTS, "FIVETRAN_API_KEY": "mine"}
    assert got["HTTPS_PROXY"] == got["https_proxy"]
    assert not {"NO_PROXY", "http_proxy"} & set(got)
    assert f"{got[name]}, removed at the end; set {name} to keep them.\n" in err
    assert play("sh", "-c", f"echo ${name}", **{name: "x"}) == (0, "x\n", "")


# What the command does, and the exit code of the program.
ENDS = {
    "exit 7": 7,
    "kill -KILL $$": 137,
    "kill -TERM $PPID; exec sleep 1000": 143,  # SIGTERM for the program alone
    "trap 'exit 15' TERM; kill -TERM $PPID; while sleep 0.01; do :; done": 15,
    "kill -INT 0; exec sleep 1000": 130,  # Ctrl-C is for both
}


def test_what_ends_the_program_ends_the_command_which_decides_the_exit_code(play):
    assert {command: play("sh", "-c", command)[0] for command in ENDS} == ENDS


def test_what_keeps_the_command_from_running_is_told_in_a_line(play):
    code, _, err = play("/no/such/command")
    assert code == 127 and "cannot run /no/such/command: No such file or direct" in err
    code, out, err = play("env", python=(sys.executable, "-S"))  # without trustme
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "'trustme'" in err and err.endswith(": .venv/bin/pip install trustme\n")
    code, out, err = play("--help")
    assert (code, err) == (0, "") and "tests/fake_fivetran.py sh\n" in out
    assert (play("-h"), play()) == ((0, out, ""), (2, "", out))


def test_requests_and_responses_are_shown_on_stderr_if_it_can_be_written(play):
    where, auth = f"https://{HOST}{SYNC}", tuple(INPUTS.values())[:2]
    client = f"import requests; print(requests.post('{where}', json={{}}, auth={auth}))"
    command = [sys.executable, "-c", client]
    code, out, err = play(*command)
    assert (code, out) == (0, "<Response [200]>\n")
    assert f"\n> POST {where}\n> Accept: */*\n" in err
    assert "\n> {}\n< HTTP/1.1 200 OK\n" in err
    assert "uthorization" not in err
    shell = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh", sys.executable)
    assert play(*command, python=shell) == (code, out, "")
