"""Artifacts: what they hold, and that they are whole or not there at all."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import shutil
import stat
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from conftest import (
    API_SECRET,
    CONNECTOR_ID,
    NOT_STARTED,
    PATIENCE,
    RECORD,
    RESPONSE,
    STARTED,
    Run,
    Runner,
    execute,
    in_own_mounts,
    needs_mounts,
)
from faults import CHUNKED, OK, after, answer, close, page, pour, send

if TYPE_CHECKING:
    from pathlib import Path

    from fake_fivetran import FakeFivetran, Fault

# The response ----------------------------------------------------------------------------


def test_the_response_is_stored_to_the_byte(
    run: Runner, fivetran: FakeFivetran
) -> None:
    sent = '{ "code":"Success",\t"message" : "запущено \\u2713 \\ud800",\n"x":1e999}'
    fivetran.faults.append(page(200, sent)._replace(status=200))
    run()
    assert (run.artifacts / RESPONSE).read_bytes() == sent.encode()


def test_secrets_that_are_echoed_are_not_stored(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(page(401, json.dumps({"code": "x", "y": API_SECRET})))
    fivetran.faults[0] = fivetran.faults[0]._replace(status=401)
    assert run().response["y"] == "***"
    fivetran.faults.append(page(401, f"<html>{API_SECRET}</html>"))
    assert run().response["body"] == "<html>***</html>"


MIB = 1024 * 1024


def bomb() -> Fault:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = [compressor.compress(bytes(MIB)) for _ in range(100)]
    head = OK + b"Content-Encoding: gzip\r\n\r\n"
    return send(head + b"".join([*packed, compressor.flush()]))


FLOODS = {
    "body": lambda: pour(OK + b'\r\n{"code": "Success", "x": "', b"x" * MIB),
    "chunks": lambda: pour(CHUNKED, b"100000\r\n" + bytes(MIB) + b"\r\n"),
    "compressed body": bomb,
    "small lists": lambda: page(200, '{"code": "x", "x": [' + "[]," * 21_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_no_answer_takes_more_than_64_mib_of_memory(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append(FLOODS[name]())
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:]);"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, *run.command]
    process = execute(command, cwd=run.folder, env=run.environment)
    assert int(process.stdout.split()[-1]) / 1024 < 64
    assert (run.artifacts / RESPONSE).stat().st_size < 65_536


# The record ------------------------------------------------------------------------------


def test_the_record_holds_connector_id_and_the_time_of_the_answer(
    run: Runner, fivetran: FakeFivetran
) -> None:
    before = datetime.now(timezone.utc)
    record = run().record
    assert record
    connector_id, execution_time = record
    assert connector_id == CONNECTOR_ID
    assert execution_time.utcoffset() == timedelta(0)
    (started,) = fivetran.connections[CONNECTOR_ID].syncs
    assert before < started < execution_time < datetime.now(timezone.utc)


def test_any_python_3_loads_the_record_with_its_standard_library_alone(
    run: Runner,
) -> None:
    run()
    record = (run.artifacts / RECORD).read_bytes()
    operations = list(pickletools.genops(record))
    assert max(operation.proto for operation, _, _ in operations) <= 3
    imported = [str(name) for op, name, _ in operations if op.name == "GLOBAL"]
    assert {name.split()[0] for name in imported} == {"datetime"}


def test_a_run_that_starts_no_sync_leaves_the_record_of_the_last_one(
    run: Runner, fivetran: FakeFivetran
) -> None:
    first = run().record
    assert run(FIVETRAN_API_SECRET="something else").record == first
    assert run("--timeout=1e-6").record == first
    fivetran.faults.extend([close("answer")] * 4)
    last = run().record
    assert first
    assert last
    assert last[1] > first[1]


# How they are written --------------------------------------------------------------------


def test_permissions_follow_the_umask(run: Runner) -> None:
    run.command = ["sh", "-c", 'umask 027 && exec "$@"', "sh", *run.command]
    run()
    for path in (run.artifacts / RESPONSE, run.artifacts / RECORD):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_a_link_in_the_place_of_an_artifact_is_replaced_and_not_followed(
    run: Runner, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for path in (run.artifacts / RESPONSE, run.artifacts / RECORD):
        path.parent.mkdir(parents=True)
        path.symlink_to(precious)
    assert run().code == 0
    assert precious.read_text() == "mine"
    assert not (run.artifacts / RESPONSE).is_symlink()


def test_a_reader_never_sees_a_torn_or_an_empty_artifact(run: Runner) -> None:
    run()
    over = threading.Event()

    def read() -> int:
        looks = 0
        while not over.is_set():
            response = (run.artifacts / RESPONSE).read_text()
            assert json.loads(response)["code"] in ("Success", "NoResponse")
            record = pickle.loads((run.artifacts / RECORD).read_bytes())
            assert record[0] == CONNECTOR_ID
            looks += 1
        return looks

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            processes = [run.start() for _ in range(8)]
            for process in processes:
                process.communicate(timeout=PATIENCE)
        finally:
            over.set()
        assert reader.result() > 10
    assert {process.returncode for process in processes} == {0}
    run.check_leftovers()


# Where they cannot be written ------------------------------------------------------------


def test_a_full_disk_ends_the_run_before_it_sends(
    run: Runner, fivetran: FakeFivetran
) -> None:
    """No file may grow: the folders can be made, and nothing can be written into them."""
    limits = 'trap "" XFSZ; ulimit -f 0; exec "$@"'
    run.command = ["bash", "-c", limits, "bash", *run.command]
    result = run()
    assert (result.code, result.truth, result.out) == (1, NOT_STARTED, "")
    assert "an artifact cannot be written: [Errno 27] File too large" in result.last
    assert "set SHIPYARD_ARTIFACTS_DIRECTORY." in result.last
    assert not fivetran.tunnels


@pytest.mark.parametrize("path", [RESPONSE, RECORD.parent], ids=str)
def test_what_stands_in_the_place_of_an_artifact_ends_the_run_before_it_sends(
    run: Runner, fivetran: FakeFivetran, path: Path
) -> None:
    if path == RESPONSE:
        (run.artifacts / path).mkdir(parents=True)
    else:
        run.artifacts.mkdir(parents=True)
        (run.artifacts / path).symlink_to("nowhere")
    result = run()
    assert (result.code, result.truth) == (1, NOT_STARTED)
    assert path.name in result.last
    assert not fivetran.tunnels


@pytest.mark.parametrize(
    ("path", "status", "truth"),
    [
        ("responses", 200, STARTED),
        ("variables", 200, STARTED),
        ("responses", 403, NOT_STARTED),
    ],
)
def test_a_folder_that_goes_after_the_answer_does_not_change_the_truth(
    run: Runner, fivetran: FakeFivetran, path: str, status: int, truth: str
) -> None:
    def spoil() -> None:
        shutil.rmtree(run.artifacts / path)
        (run.artifacts / path).symlink_to("nowhere")

    fivetran.faults.append(after(spoil, answer(status)))
    result = run()
    assert (result.code, result.truth) == (1, truth)
    assert f" (HTTP {status}, " in result.last


@needs_mounts
def test_a_disk_that_fills_up_after_the_answer_leaves_what_was_there(
    run: Runner, fivetran: FakeFivetran
) -> None:
    # The small disk is seen by its own namespace only, so a process in there fills it.
    for name in ("go", "full"):
        os.mkfifo(run.folder / name)

    def spoil() -> None:
        (run.folder / "go").write_text("")
        (run.folder / "full").read_text()

    fivetran.faults.append(after(spoil, answer(200)))
    script = """
        mkdir disk && mount -t tmpfs -o size=64k none disk || exit 99
        (read _ < go; dd if=/dev/zero of=disk/filler 2> /dev/null; : > full) &
        "$@"; code=$?
        find disk -type f ! -name filler -size +0 -printf '%f\\n' > found
        exit $code
    """
    process = execute(
        in_own_mounts(script, run.command),
        cwd=run.folder,
        env={**run.environment, "SHIPYARD_ARTIFACTS_DIRECTORY": "disk"},
    )
    result = Run(process.returncode, process.stdout, process.stderr, run.folder)
    assert (result.code, result.truth) == (1, STARTED)
    assert "No space left on device" in result.last
    assert (run.folder / "found").read_text().split() == [RESPONSE.name]
