"""The main job: a sync is forced, and a record of it kept."""

from __future__ import annotations

import base64
import json
import os
import pickle
import pickletools
import stat
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import requests
from conftest import API_KEY, API_SECRET, CONNECTOR_ID, SCRIPT, Runner, execute
from fake_fivetran import FakeFivetran
from faults import reply

# Older than the script itself can be run with; where pyenv has put them, if it is here.
OLD_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.[678].*/bin/python"))


def test_sends_one_request_as_documented(run: Runner, fivetran: FakeFivetran) -> None:
    assert run().code == 0
    (request,) = fivetran.requests
    assert request.method == "POST"
    assert request.path == f"/v1/connections/{CONNECTOR_ID}/sync"
    assert request.body == b'{"force": true}'
    assert request.headers["host"] == "api.fivetran.com"
    assert request.headers["accept"] == "application/json;version=2"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == "15"
    assert request.headers["user-agent"] == "fivetran-execute-sync/1.0.0"
    credentials = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
    assert request.headers["authorization"] == f"Basic {credentials}"
    assert fivetran.tunnels == ["api.fivetran.com:443"]


def test_starts_a_sync(run: Runner, fivetran: FakeFivetran) -> None:
    assert run().code == 0
    assert fivetran.connections[CONNECTOR_ID].syncing


def test_stops_a_running_sync_and_starts_it_again(
    run: Runner, fivetran: FakeFivetran
) -> None:
    connection = fivetran.connections[CONNECTOR_ID]
    connection.start()
    assert run().code == 0
    assert connection.syncing
    assert len(connection.syncs) == 2
    assert connection.succeeded_at is connection.failed_at is None


def test_does_not_wait_for_the_sync(run: Runner, fivetran: FakeFivetran) -> None:
    assert run().code == 0
    assert [request.method for request in fivetran.requests] == ["POST"]
    assert fivetran.connections[CONNECTOR_ID].syncing


def test_keeps_what_fivetran_answered(run: Runner) -> None:
    result = run()
    assert result.response_path.name == f"sync_{CONNECTOR_ID}_response.json"
    message = (
        f"Sync has been successfully triggered for connection with id '{CONNECTOR_ID}'"
    )
    assert result.response == {"code": "Success", "message": message}
    assert (
        result.response_path.read_text().count("\n") == 4
    )  # indented, and ends its last line


def test_keeps_the_response_as_utf_8(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(
        reply(200, '{"code": "Success", "message": "запущено \\u2713"}')
    )
    result = run()
    assert result.code == 0
    assert "запущено ✓" in result.response_path.read_text(encoding="utf-8")
    assert "запущено ✓" in result.out


def test_record_holds_connector_id_and_the_time_of_the_answer(
    run: Runner, fivetran: FakeFivetran
) -> None:
    before = datetime.now(timezone.utc)
    connector_id, execution_time = run().record
    assert connector_id == CONNECTOR_ID
    assert execution_time.utcoffset() == timedelta(0)
    (started,) = fivetran.connections[CONNECTOR_ID].syncs
    assert before < started < execution_time < datetime.now(timezone.utc)


def test_record_is_a_list(run: Runner) -> None:
    assert type(pickle.loads(run().record_path.read_bytes())) is list


def test_any_python_3_loads_the_record_with_its_standard_library_alone(
    run: Runner,
) -> None:
    record = run().record_path.read_bytes()
    operations = list(pickletools.genops(record))
    assert max(operation.proto for operation, _, _ in operations) <= 3
    names = [
        argument for operation, argument, _ in operations if operation.name == "GLOBAL"
    ]
    assert names
    assert {name.split()[0] for name in names} == {"datetime"}


@pytest.mark.skipif(not OLD_PYTHONS, reason="no older Python here")
def test_an_older_python_loads_the_record(run: Runner) -> None:
    result = run()
    reader = (
        "import pickle, sys; id, time = pickle.load(open(sys.argv[1], 'rb'));"
        "print(id, time.isoformat())"
    )
    connector_id, execution_time = result.record
    for python in OLD_PYTHONS:
        command = [str(python), "-I", "-c", reader, str(result.record_path)]
        process = execute(command)
        assert process.stdout == f"{connector_id} {execution_time.isoformat()}\n", (
            process.stderr
        )


def test_record_carries_the_log_id_in_its_name(run: Runner) -> None:
    log_id = "3f0e9c5e-8a0b-4a55-9f0f-0d1a6f6c2b1e"
    result = run(SHIPYARD_LOG_ID=log_id)
    assert result.record_path.name == f"{log_id}_force_sync.pickle"


def test_record_has_no_prefix_without_a_log_id(run: Runner) -> None:
    assert run(SHIPYARD_LOG_ID=None).record_path.name == "force_sync.pickle"
    assert run(SHIPYARD_LOG_ID=" ").record_path.name == "force_sync.pickle"


@pytest.mark.parametrize("folder", ["elsewhere", "a/b c/ä", "/absolute"])
def test_artifacts_go_where_shipyard_wants_them(
    run: Runner, tmp_path: Path, folder: str
) -> None:
    wanted = tmp_path / folder.lstrip("/")
    name = str(wanted) if folder.startswith("/") else folder
    result = run(SHIPYARD_ARTIFACTS_DIRECTORY=name)
    assert result.code == 0
    assert (wanted / "fivetran-blueprints/variables/force_sync.pickle").is_file()
    response = (
        wanted / f"fivetran-blueprints/responses/sync_{CONNECTOR_ID}_response.json"
    )
    assert json.loads(response.read_text())["code"] == "Success"
    assert not (tmp_path / "shipyard-artifacts").exists()


def test_artifacts_go_to_the_default_folder_if_the_variable_is_blank(
    run: Runner,
) -> None:
    assert run(SHIPYARD_ARTIFACTS_DIRECTORY=" ").response["code"] == "Success"


def test_tells_what_it_does_what_came_of_it_and_where_that_is_kept(run: Runner) -> None:
    result = run()
    doing, kept, answered = result.out.splitlines()
    assert f"Forcing a sync of connector {CONNECTOR_ID}" in doing
    assert "Success: Sync has been successfully triggered" in answered
    assert str(result.response_path.relative_to(result.folder)) in kept
    assert str(result.record_path.relative_to(result.folder)) in kept
    assert result.err == ""


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("ключ-ключ", "секрет-секрет"),
        ("käse", "€€€"),
        ("密钥", 'quo"te\\back'),
        ("k", "s"),
    ],
)
def test_any_key_and_secret_work(
    run: Runner, fivetran: FakeFivetran, key: str, secret: str
) -> None:
    fivetran.credentials = (key, secret)
    assert run(FIVETRAN_API_KEY=key, FIVETRAN_API_SECRET=secret).code == 0
    assert run("--api-key", key, f"--api-secret={secret}").response["code"] == "Success"


def test_netrc_does_not_replace_the_key(run: Runner, tmp_path: Path) -> None:
    home = tmp_path / "home.json"  # a name that no test takes for a leftover
    home.mkdir()
    netrc = home / "netrc.json"
    netrc.write_text("default login somebody password else\n")
    assert run(NETRC=str(netrc), HOME=str(home)).code == 0


def test_an_older_record_is_replaced(run: Runner) -> None:
    _, first = run().record
    _, second = run().record
    assert first < second


def test_permissions_follow_the_umask(run: Runner) -> None:
    before = os.umask(0o027)
    try:
        result = run()
    finally:
        os.umask(before)
    for path in (result.response_path, result.record_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_is_executable_and_can_be_imported_without_doing_anything(
    tmp_path: Path,
) -> None:
    assert os.access(SCRIPT, os.X_OK)
    code = "import fivetran_execute_sync as script; print(script.__doc__[:5])"
    process = execute(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SCRIPT.parent), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (process.stdout, process.stderr) == ("Force\n", "")
    assert not list(tmp_path.iterdir())


# What Check Sync Status does with the record (shared/contract.md) -----------------------


def check_sync_status(run: Runner, record: Path) -> str:
    """Tell how the sync of a record ended, as the blueprint does that follows in a fleet."""
    with record.open("rb") as f:
        connector_id, execution_time = pickle.load(f)
    answer = requests.get(
        f"https://api.fivetran.com/v1/connections/{connector_id}",
        auth=(API_KEY, API_SECRET),
        headers={"Accept": "application/json;version=2"},
        proxies={"https": run.fivetran.proxy_url},
        verify=str(run.fivetran.ca_bundle),
        timeout=30,
    )
    details = answer.json()["data"]
    for name, verdict in (("succeeded_at", "succeeded"), ("failed_at", "failed")):
        if details[name]:
            ended = datetime.strptime(details[name], "%Y-%m-%dT%H:%M:%S.%fZ")
            if ended.replace(tzinfo=timezone.utc) > execution_time:
                return verdict
    return "running"


@pytest.mark.parametrize("succeeded", [True, False])
def test_check_sync_status_sees_how_the_sync_ended(
    run: Runner, fivetran: FakeFivetran, succeeded: bool
) -> None:
    record = run().record_path
    fivetran.connections[CONNECTOR_ID].finish(succeeded=succeeded)
    assert check_sync_status(run, record) == ("succeeded" if succeeded else "failed")


def test_check_sync_status_sees_that_the_sync_is_running(run: Runner) -> None:
    assert check_sync_status(run, run().record_path) == "running"


@pytest.mark.parametrize("succeeded", [True, False])
def test_check_sync_status_does_not_take_an_older_sync_for_this_one(
    run: Runner, fivetran: FakeFivetran, succeeded: bool
) -> None:
    # It ends while the request of this run is on its way.
    connection = fivetran.connections[CONNECTOR_ID]
    connection.start()
    start = connection.start

    def finish_then_start() -> None:
        connection.finish(succeeded=succeeded)
        start()

    connection.start = finish_then_start  # type: ignore[method-assign]
    assert check_sync_status(run, run().record_path) == "running"
