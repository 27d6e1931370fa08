"""Artifacts are whole or not there at all, whatever the disk does and whoever else writes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import CONNECTOR_ID, Run, Runner, execute
from fake_fivetran import FakeFivetran, Fault
from faults import reply

RESPONSE = Path("responses", f"sync_{CONNECTOR_ID}_response.json")
RECORD = Path("variables", "force_sync.pickle")


def refused(result: Run, fivetran: FakeFivetran) -> str:
    """Check that nothing was sent; return the one line that says why."""
    assert result.code == 1
    assert result.out == ""
    assert fivetran.tunnels == []
    (line,) = result.err.splitlines()
    assert "Nothing was sent" in line
    return line


@pytest.mark.parametrize(
    "path",
    [".", "..", "../..", "responses", "variables"],
    ids=lambda path: f"at {path}",
)
def test_a_file_in_the_place_of_a_folder_ends_the_run_before_it_sends(
    run: Runner, fivetran: FakeFivetran, path: str
) -> None:
    obstacle = (run.artifacts / "x" / ".." / path).resolve()
    if path == "..":
        obstacle = run.artifacts.parent
    elif path == "../..":
        obstacle = run.folder / "elsewhere.json"
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_text("mine")
    variables = (
        {"SHIPYARD_ARTIFACTS_DIRECTORY": str(obstacle)} if path == "../.." else {}
    )
    process = run.start(**variables)
    out, err = process.communicate()
    result = Run(process.returncode, out, err, run.folder, run.artifacts)
    refused(result, fivetran)
    assert obstacle.read_text() == "mine"


@pytest.mark.parametrize("path", [RESPONSE, RECORD], ids=str)
def test_a_folder_in_the_place_of_an_artifact_ends_the_run_before_it_sends(
    run: Runner, fivetran: FakeFivetran, path: Path
) -> None:
    run()
    fivetran.tunnels.clear()
    other = run.artifacts / (RECORD if path == RESPONSE else RESPONSE)
    before = other.read_bytes()
    (run.artifacts / path).unlink()
    (run.artifacts / path).mkdir()
    line = refused(run(), fivetran)
    assert path.name in line
    assert other.read_bytes() == before


def test_a_read_only_file_system_ends_the_run_before_it_sends(
    run: Runner, fivetran: FakeFivetran
) -> None:
    if not Path("/proc/sys").is_dir():
        pytest.skip("no file system here that nobody can write")
    line = refused(run(SHIPYARD_ARTIFACTS_DIRECTORY="/proc/sys"), fivetran)
    assert "/proc/sys/fivetran-blueprints" in line


def test_a_full_disk_ends_the_run_before_it_sends(
    run: Runner, fivetran: FakeFivetran
) -> None:
    """No file may grow: the folders can be made, and nothing can be written into them."""
    command = [
        "bash",
        "-c",
        'trap "" XFSZ; ulimit -f 0; "$@" | cat',
        "bash",
        *run.command,
    ]
    process = execute(command, cwd=run.folder, env=run.environment)
    assert "Nothing was sent" in process.stderr
    assert "File too large" in process.stderr
    assert fivetran.tunnels == []
    assert not [path for path in run.folder.rglob("*") if path.is_file()]


def spoil_after_acceptance(fivetran: FakeFivetran, spoil: object) -> None:
    """Do something to the disk after a sync has been started, and before that is answered."""

    def act(sock: object) -> None:
        fivetran.connections[CONNECTOR_ID].start()
        spoil()  # type: ignore[operator]
        reply(200, '{"code": "Success", "message": "on its way"}').act(sock)

    fivetran.faults.append(Fault("answer", act))


@pytest.mark.parametrize(
    "path", [Path("responses"), Path("variables"), RESPONSE, RECORD], ids=str
)
def test_a_disk_that_fails_after_the_sync_was_started_is_told_as_such(
    run: Runner, fivetran: FakeFivetran, path: Path
) -> None:
    target = run.artifacts / path

    def spoil() -> None:
        if target.is_dir():
            shutil.rmtree(target)
            target.symlink_to("nowhere")
        else:
            target.unlink()
            target.mkdir()

    spoil_after_acceptance(fivetran, spoil)
    result = run()
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert f"sync of connector {CONNECTOR_ID} was started all the same" in line
    assert "record cannot be written" in line


def has_room_for_mounts() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and not execute(command).returncode


@pytest.mark.skipif(
    not has_room_for_mounts(), reason="takes root, to make a small disk"
)
def test_a_disk_that_fills_up_after_the_sync_was_started_is_told_as_such(
    run: Runner, fivetran: FakeFivetran, tmp_path: Path
) -> None:
    # The small disk is seen by its own namespace only, so a process in there fills it.
    go = tmp_path / "go.json"
    os.mkfifo(go)
    full = tmp_path / "full.json"
    os.mkfifo(full)

    def spoil() -> None:
        go.write_text("")
        full.read_text()

    spoil_after_acceptance(fivetran, spoil)
    script = """
        mkdir disk && mount -t tmpfs -o size=64k none disk || exit 99
        (read _ < go.json; dd if=/dev/zero of=disk/filler 2>/dev/null; : > full.json) &
        "$@"; code=$?
        find disk -type f ! -name filler -printf '%f %s\\n' >&2
        exit $code
    """
    process = execute(
        ["unshare", "--mount", "bash", "-c", script, "bash", *run.command],
        cwd=tmp_path,
        env={**run.environment, "SHIPYARD_ARTIFACTS_DIRECTORY": "disk"},
    )
    assert process.returncode == 1
    line, *files = process.stderr.splitlines()
    assert "No space left on device" in line
    assert f"sync of connector {CONNECTOR_ID} was started all the same" in line
    assert sorted(name.split()[0] for name in files) == sorted(
        [RESPONSE.name, RECORD.name]
    )
    assert all(int(name.split()[1]) > 0 for name in files)


def test_a_disk_that_fails_after_a_refusal_tells_both(
    run: Runner, fivetran: FakeFivetran
) -> None:
    def act(sock: object) -> None:
        shutil.rmtree(run.artifacts)
        run.artifacts.symlink_to("nowhere")
        reply(403, '{"code": "Forbidden", "message": "not you"}').act(sock)

    fivetran.faults.append(Fault("answer", act))
    result = run()
    assert result.code == 1
    assert "Forbidden: not you" in result.err
    assert "was started" not in result.err


def test_a_link_in_the_place_of_an_artifact_is_replaced_and_not_followed(
    run: Runner, tmp_path: Path
) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text("mine")
    for path in (RESPONSE, RECORD):
        (run.artifacts / path).parent.mkdir(parents=True)
        (run.artifacts / path).symlink_to(precious)
    assert run().code == 0
    assert precious.read_text() == "mine"
    assert not (run.artifacts / RESPONSE).is_symlink()


def test_a_reader_never_sees_a_torn_or_an_empty_artifact(
    run: Runner, fivetran: FakeFivetran
) -> None:
    assert run().code == 0
    over = threading.Event()
    looks = 0

    def read() -> int:
        nonlocal looks
        while not over.is_set():
            response = json.loads((run.artifacts / RESPONSE).read_bytes())
            assert response["code"] in ("Success", "NoResponse")
            connector_id, _ = pickle.loads((run.artifacts / RECORD).read_bytes())
            assert connector_id == CONNECTOR_ID
            looks += 1
        return looks

    with ThreadPoolExecutor(11) as pool:
        reader = pool.submit(read)
        processes = [run.start() for _ in range(25)]
        codes = list(
            pool.map(
                lambda process: (process.communicate(), process.returncode)[1],
                processes,
            )
        )
        processes = [run.start() for _ in range(25)]
        codes += pool.map(
            lambda process: (process.communicate(), process.returncode)[1], processes
        )
        over.set()
        assert reader.result() > 50
    assert codes == [0] * 50
    run.check_leftovers()


def test_fifty_runs_side_by_side_leave_fifty_right_records(
    run: Runner, fivetran: FakeFivetran
) -> None:
    names = [f"connector_{number}" for number in range(50)]
    for name in names:
        fivetran.connections[name] = type(fivetran.connections[CONNECTOR_ID])(name)
    processes = {
        name: run.start(FIVETRAN_CONNECTOR_ID=name, SHIPYARD_LOG_ID=f"log-{name}")
        for name in names
    }
    for name, process in processes.items():
        assert process.communicate()[1] == ""
        assert process.returncode == 0
        record = run.artifacts / "variables" / f"log-{name}_force_sync.pickle"
        connector_id, execution_time = pickle.loads(record.read_bytes())
        assert connector_id == name
        (started,) = fivetran.connections[name].syncs
        assert started < execution_time
        response = run.artifacts / "responses" / f"sync_{name}_response.json"
        assert f"'{name}'" in json.loads(response.read_text())["message"]
    assert len(list((run.artifacts / "variables").iterdir())) == 50
    run.check_leftovers()


def test_a_run_interrupted_at_any_moment_leaves_whole_artifacts_or_none(
    run: Runner, fivetran: FakeFivetran
) -> None:
    """Ctrl-C after 0 to 400 ms: while Python starts, imports, writes, sends and ends."""
    for delay in range(0, 400, 25):
        process = run.start()
        try:
            process.wait(timeout=delay / 1000)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        process.communicate()
        run.check_leftovers()
        for path in (RESPONSE, RECORD):
            if (run.artifacts / path).exists():
                assert (run.artifacts / path).stat().st_size > 0


def test_what_ends_before_sending_touches_neither_artifact(
    run: Runner, fivetran: FakeFivetran
) -> None:
    run()
    before = [(run.artifacts / path).read_bytes() for path in (RESPONSE, RECORD)]
    assert run("--timeout=0").code == 2
    assert run(FIVETRAN_API_KEY="").code == 2
    assert run("--api-sceret=x").code == 2
    assert before == [
        (run.artifacts / path).read_bytes() for path in (RESPONSE, RECORD)
    ]


def test_artifacts_may_lie_on_different_disks(run: Runner) -> None:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no second disk here")
    run.artifacts.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (run.artifacts / "variables").symlink_to(other)
        assert run().code == 0
        assert os.listdir(other) == [RECORD.name]


# Root may write everywhere, unless it gives that up.
AS_MORTAL = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if os.geteuid() == 0
    else []
)


@pytest.mark.skipif(
    bool(AS_MORTAL) and not shutil.which("setpriv"), reason="root without setpriv"
)
@pytest.mark.parametrize("path", ["responses", "variables"])
def test_a_folder_that_cannot_be_written_ends_the_run_before_it_touches_anything(
    run: Runner, fivetran: FakeFivetran, path: str
) -> None:
    run()
    fivetran.tunnels.clear()
    before = [(run.artifacts / name).read_bytes() for name in (RESPONSE, RECORD)]
    (run.artifacts / path).chmod(0o555)
    command = [*AS_MORTAL, *run.command]
    process = execute(command, cwd=run.folder, env=run.environment)
    (run.artifacts / path).chmod(0o755)
    assert process.returncode == 1, process.stderr
    assert "Nothing was sent" in process.stderr
    assert "Permission denied" in process.stderr
    assert fivetran.tunnels == []
    assert before == [
        (run.artifacts / name).read_bytes() for name in (RESPONSE, RECORD)
    ]
