"""The local Fivetran behaves as the documented one, to any client."""

import os
import signal
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import requests
from fake_fivetran import HOST, INPUTS
from faults import answer, page
from harness import API_KEY, API_SECRET, CONNECTOR_ID, PATIENCE, execute, wait_until

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
    ("PATCH", DETAILS, {"json": {"paused": 1}}, "400 InvalidInput"),
    ("PATCH", DETAILS, {"json": {}}, "400 InvalidInput"),
    ("PATCH", DETAILS, {"json": {"schedule_type": "manual"}}, "200 Success: Conn"),
    ("POST", SYNC, {}, "200 Success: Sync has been successfully triggered"),
    ("POST", SYNC, {"json": {"force": False}}, "409 Conflict"),
    ("POST", SYNC, {"json": {"force": True}}, "200 Success"),
]


def call(fivetran, method, path, client="", **options):
    """Send a request to the API; return the status and the JSON of the answer."""
    proxy = fivetran.proxy_url.replace("//", f"//{client}:x@" if client else "//")
    usual = {"auth": (API_KEY, API_SECRET), "proxies": {"https": proxy}}
    usual.update(verify=fivetran.ca_bundle, timeout=PATIENCE)
    reply = requests.request(method, f"https://{HOST}{path}", **{**usual, **options})
    return reply.status_code, reply.json()


def test_answers_are_those_documented(fivetran):
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


def test_a_sync_succeeds_when_its_time_is_over_unless_another_stops_it(fivetran):
    connection = fivetran.connections[CONNECTOR_ID]
    connection.sync_seconds = 3600
    now = datetime.now(timezone.utc)
    earlier, later = now - timedelta(minutes=90), now - timedelta(minutes=40)
    end = f"{earlier + timedelta(hours=1):%Y-%m-%dT%H:%M:%S.%fZ}"
    for syncs, *told in ([earlier], end, "paused"), ([earlier, later], None, "syncing"):
        connection.syncs = syncs
        data = call(fivetran, "PATCH", DETAILS, json={"paused": True})[1]["data"]
        assert [data["succeeded_at"], data["status"]["sync_state"]] == told


def test_a_request_tells_whose_it_was_and_what_it_did_and_is_no_plain_http(fivetran):
    fivetran.faults += [answer(200), answer(409), answer(500), page(403, b"{}")]
    reply = requests.post(fivetran.proxy_url, timeout=PATIENCE)
    assert reply.status_code == 501 and f" CONNECT proxy for {HOST}:443" in reply.text
    for client in ("a", "b", "", "c", "d", "e"):
        call(fivetran, "POST", SYNC, client)
    told = " ".join(f"{request.client}:{request.sync}" for request in fivetran.requests)
    assert told == "a:started b:refused :unclear c:unclear d:started e:refused"


@pytest.fixture
def play(tmp_path):
    """Run the program to its end; return exit code, stdout and stderr."""

    def play(*words, python=(sys.executable,), **variables):
        variables = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **variables}
        process = execute([*python, PROGRAM, *words], env=variables)
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


def test_the_exit_code_is_that_of_the_command_or_a_line_says_why_it_did_not_run(play):
    assert [play("sh", "-c", end)[0] for end in ("exit 7", "kill -9 $$")] == [7, 137]
    code, _, err = play("/no/such/command")
    assert code == 127 and "cannot run /no/such/command: No such file or direct" in err
    code, out, err = play("env", python=(sys.executable, "-S"))  # without trustme
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "'trustme'" in err and err.endswith(": .venv/bin/pip install trustme\n")


def test_requests_and_responses_are_shown_on_stderr_if_it_can_be_written(play):
    where, auth = f"https://{HOST}{SYNC}", tuple(INPUTS.values())[:2]
    client = f"import requests; print(requests.post('{where}', json={{}}, auth={auth}))"
    strict = ["-X", "dev", "-W", "ignore", "-W", "error::ResourceWarning"]
    command = [sys.executable, "-c", client]
    code, out, err = play(*command, python=[sys.executable, *strict])
    assert (code, out) == (0, "<Response [200]>\n")
    assert f"\n> POST {where}\n> Accept: */*\n" in err
    assert "\n> {}\n< HTTP/1.1 200 OK\n" in err
    assert not ("uthorization" in err or "Warning" in err)
    shell = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh", sys.executable)
    assert play(*command, python=shell) == (code, out, "")


# Says that it is there, then exits with the number of the signal that it gets.
WAIT = """from signal import *
signal(SIGINT, lambda *_: exit(2)), signal(SIGTERM, lambda *_: exit(15))
print(flush=True), pause()"""


@pytest.mark.parametrize("code", [143, 15, 2])
def test_a_signal_ends_the_command_first(tmp_path, code):
    """SIGTERM, perhaps before it runs, or to one that has a code of its own; Ctrl-C."""
    command = ["sleep", "1000"] if code == 143 else [sys.executable, "-c", WAIT]
    options = {"stdout": PIPE, "env": {**os.environ, "TMPDIR": str(tmp_path)}}
    arguments = [sys.executable, PROGRAM, *command]
    with Popen(arguments, start_new_session=True, **options) as process:
        try:
            wait_until(lambda: [*tmp_path.iterdir()])
            assert code == 143 or process.stdout.readline()
            (os.killpg if code == 2 else os.kill)(process.pid, code % 128)
            assert process.wait(PATIENCE) == code
            assert not list(tmp_path.iterdir()), "left behind"
        finally:
            with pytest.raises(ProcessLookupError):  # nobody is left in the session
                os.killpg(process.pid, signal.SIGKILL)


def test_help_is_on_stdout_and_without_a_command_on_stderr(play):
    code, out, err = play("--help")
    assert (code, err) == (0, "") and "tests/fake_fivetran.py sh\n" in out
    assert (play("-h"), play()) == ((0, out, ""), (2, "", out))
