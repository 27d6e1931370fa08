"""Artifacts: what they hold, and that they are whole or not there at all."""

from __future__ import annotations

import base64
import json
import os
import pickle
import pickletools
import shutil
import stat
import sys
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

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
from fake_fivetran import Connection, FakeFivetran, Fault
from faults import CHUNKED, OK, SUCCESS, after, pour, reply

# The response ----------------------------------------------------------------------------


def test_the_response_is_kept_as_fivetran_sent_it(
    run: Runner, fivetran: FakeFivetran
) -> None:
    sent = '{ "code":"Success",\t"message" : "запущено \\u2713 \\ud800",\n"x":1e999}'
    fivetran.faults.append(reply(200, sent))
    result = run()
    assert result.response_path.name == RESPONSE.name
    assert result.response_path.read_bytes() == sent.encode()


def test_a_response_of_up_to_64_kib_is_kept_whole(
    run: Runner, fivetran: FakeFivetran
) -> None:
    head, end = '{"code": "Success", "message": "', '"}'
    sent = head + "x" * (64 * 1024 - len(head + end)) + end
    fivetran.faults.append(reply(200, sent))
    assert run().response_path.read_text() == sent


def test_what_is_not_fivetrans_word_is_kept_as_far_as_its_beginning(
    run: Runner, fivetran: FakeFivetran
) -> None:
    page = "<title>Sign in</title>" + "x" * 100_000
    fivetran.faults.append(reply(200, page))
    response = run().response
    assert response["code"] == "InvalidResponse"
    assert "<title>Sign in</title>" in response["message"]
    assert len(response["body"]) > 1_000
    assert page.startswith(response["body"])


@pytest.mark.parametrize(
    "form",
    [
        '{{"code": "{secret}", "message": "{token}", "{token}": ["{key}"]}}',
        "<html>{key} {secret} Authorization: Basic {token}</html>",
    ],
)
def test_secrets_that_are_echoed_are_neither_shown_nor_kept(
    run: Runner, fivetran: FakeFivetran, form: str
) -> None:
    for key, secret in [("abcdefXYZ123", "abcdef"), ("ключ-и", 'quo"te\\s')]:
        token = base64.b64encode(f"{key}:{secret}".encode()).decode()
        body = form.format(key=key, secret=secret, token=token)
        fivetran.faults.append(reply(401, body, {"X-Request-Id": token}))
        result = run(FIVETRAN_API_KEY=key, FIVETRAN_API_SECRET=secret)
        kept = result.response_path.read_text(encoding="utf-8")
        for text in (result.last, kept):
            assert "***" in text
            assert not [one for one in (key, secret, token, "XYZ") if one in text]


def test_no_secret_is_uncovered_where_a_text_is_cut(
    run: Runner, fivetran: FakeFivetran
) -> None:
    for length in (90, 4_090):
        fivetran.faults.append(reply(403, "x" * length + API_SECRET))
        result = run()
        assert API_SECRET[:5] not in result.err
        assert API_SECRET[:5] not in result.response_path.read_text()


MIB = 1024 * 1024


def bomb() -> Fault:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    packed = [compressor.compress(zeros) for _ in range(100)]
    body = b"".join([*packed, compressor.flush()])
    return reply(200, body, {"Content-Encoding": "gzip"})


FLOODS = {
    "body": lambda: pour(OK + b'\r\n{"code": "Success", "x": "', b"x" * MIB),
    "chunks": lambda: pour(CHUNKED, b"100000\r\n" + bytes(MIB) + b"\r\n"),
    "header": lambda: pour(OK + b"X: ", b"x" * MIB),
    "redirect": lambda: pour(b"HTTP/1.1 302 F\r\nLocation: /\r\n\r\n", bytes(MIB)),
    "compressed body": bomb,
    "small lists": lambda: reply(200, '{"code": "Success", "x": [' + "[]," * 21_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_no_answer_takes_more_than_64_mib_of_memory(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append(FLOODS[name]())
    code = (
        "import resource, subprocess, sys;"
        "code = subprocess.run(sys.argv[1:]).returncode;"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *run.command]
    process = execute(command, cwd=run.folder, env=run.environment)
    peak = int(process.stdout.split()[-1]) / 1024
    assert process.returncode == (0 if name == "header" else 249)
    assert peak < 64
    assert (run.artifacts / RESPONSE).stat().st_size < MIB


# The record ------------------------------------------------------------------------------


def test_the_record_holds_connector_id_and_the_time_of_the_answer(
    run: Runner, fivetran: FakeFivetran
) -> None:
    before = datetime.now(timezone.utc)
    connector_id, execution_time = run().record
    assert connector_id == CONNECTOR_ID
    assert execution_time.utcoffset() == timedelta(0)
    (started,) = fivetran.connections[CONNECTOR_ID].syncs
    assert before < started < execution_time < datetime.now(timezone.utc)


def test_any_python_3_loads_the_record_with_its_standard_library_alone(
    run: Runner,
) -> None:
    record = run().record_path.read_bytes()
    assert type(pickle.loads(record)) is list
    operations = list(pickletools.genops(record))
    assert max(operation.proto for operation, _, _ in operations) <= 3
    imported = [str(name) for op, name, _ in operations if op.name == "GLOBAL"]
    assert {name.split()[0] for name in imported} == {"datetime"}


@pytest.mark.parametrize(("log_id", "prefix"), [("3f0e-8a0b", "3f0e-8a0b_"), (" ", "")])
def test_the_record_carries_the_log_id_in_its_name(
    run: Runner, log_id: str, prefix: str
) -> None:
    result = run(SHIPYARD_LOG_ID=log_id)
    assert result.record_path.name == f"{prefix}force_sync.pickle"


# Where they lie --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [("a/b c/ä", "work/a/b c/ä"), ("{tmp}/x", "x"), (" ", "work/shipyard-artifacts")],
)
def test_artifacts_go_where_shipyard_wants_them(
    run: Runner, tmp_path: Path, name: str, place: str
) -> None:
    name = name.replace("{tmp}", str(tmp_path))
    assert run(SHIPYARD_ARTIFACTS_DIRECTORY=name).code == 0
    for path in (RESPONSE, RECORD):
        assert (tmp_path / place / "fivetran-blueprints" / path).is_file()


def test_permissions_follow_the_umask(run: Runner) -> None:
    run.command = ["sh", "-c", 'umask 027 && exec "$@"', "sh", *run.command]
    result = run()
    for path in (result.response_path, result.record_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_artifacts_may_lie_on_different_disks(run: Runner) -> None:
    run.artifacts.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (run.artifacts / "variables").symlink_to(other)
        assert run().code == 0
        assert os.listdir(other) == [RECORD.name]


def test_a_link_in_the_place_of_an_artifact_is_replaced_and_not_followed(
    run: Runner, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for path in (RESPONSE, RECORD):
        (run.artifacts / path).parent.mkdir(parents=True)
        (run.artifacts / path).symlink_to(precious)
    assert run().code == 0
    assert precious.read_text() == "mine"
    assert not (run.artifacts / RESPONSE).is_symlink()


# Where they cannot be written ------------------------------------------------------------


def test_a_full_disk_ends_the_run_before_it_sends(run: Runner) -> None:
    """No file may grow: the folders can be made, and nothing can be written into them."""
    limits = 'trap "" XFSZ; ulimit -f 0; exec "$@"'
    run.command = ["bash", "-c", limits, "bash", *run.command]
    assert "File too large" in run.refused(run(), 1)


@pytest.mark.parametrize("path", [RESPONSE, RECORD], ids=str)
def test_a_folder_in_the_place_of_an_artifact_ends_the_run_before_it_sends(
    run: Runner, fivetran: FakeFivetran, path: Path
) -> None:
    run()
    other = run.artifacts / (RECORD if path == RESPONSE else RESPONSE)
    before = other.read_bytes()
    (run.artifacts / path).unlink()
    (run.artifacts / path).mkdir()
    result = run()
    assert (result.code, result.truth) == (1, NOT_STARTED)
    assert path.name in result.last
    assert other.read_bytes() == before
    assert len(fivetran.tunnels) == 1


# Root may write everywhere, unless it gives that up.
AS_MORTAL = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("path", ["responses", "variables"])
def test_a_folder_that_cannot_be_written_ends_the_run_before_it_touches_anything(
    run: Runner, fivetran: FakeFivetran, path: str
) -> None:
    run()
    before = run.kept()
    (run.artifacts / path).chmod(0o555)
    if os.geteuid() == 0:
        run.command = [*AS_MORTAL, *run.command]
    result = run()
    (run.artifacts / path).chmod(0o755)
    assert (result.code, result.truth) == (1, NOT_STARTED)
    assert "Permission denied" in result.last
    assert len(fivetran.tunnels) == 1
    assert run.kept() == before


def test_what_ends_before_sending_touches_neither_artifact(run: Runner) -> None:
    run()
    before = run.kept()
    assert run("--timeout=0").code == 2
    assert run(FIVETRAN_API_KEY="").code == 2
    assert run.kept() == before


@pytest.mark.parametrize(
    ("path", "status", "truth"),
    [("responses", 200, STARTED), (RECORD, 403, NOT_STARTED)],
)
def test_a_disk_that_fails_after_the_answer_does_not_change_the_truth(
    run: Runner, fivetran: FakeFivetran, path: Path | str, status: int, truth: str
) -> None:
    target = run.artifacts / path

    def spoil() -> None:
        if target.is_dir():
            shutil.rmtree(target)
            target.symlink_to("nowhere")
        else:
            target.unlink()
            target.mkdir()

    fivetran.faults.append(after(reply(status, SUCCESS), spoil))
    result = run()
    assert (result.code, result.truth) == (1, truth)
    assert f"HTTP {status}" in result.last


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

    fivetran.faults.append(after(reply(200, SUCCESS), spoil))
    script = """
        mkdir disk && mount -t tmpfs -o size=64k none disk || exit 99
        (read _ < go; dd if=/dev/zero of=disk/filler 2> /dev/null; : > full) &
        "$@"; code=$?
        find disk -type f ! -name filler -size +0 -printf '%f\\n' > found.json
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
    found = (run.folder / "found.json").read_text().split()
    assert sorted(found) == sorted([RESPONSE.name, RECORD.name])


# Many at once ----------------------------------------------------------------------------


def test_a_reader_never_sees_a_torn_or_an_empty_artifact(run: Runner) -> None:
    run()
    over = threading.Event()

    def read() -> int:
        looks = 0
        while not over.is_set():
            response, record = run.kept()
            assert json.loads(response)["code"] in ("Success", "NoResponse")
            assert pickle.loads(record)[0] == CONNECTOR_ID
            looks += 1
        return looks

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            processes = [run.start() for _ in range(10)]
            for process in processes:
                process.communicate(timeout=PATIENCE)
        finally:
            over.set()
        assert reader.result() > 10
    assert {process.returncode for process in processes} == {0}
    run.check_leftovers()


def test_fifty_runs_side_by_side_leave_fifty_right_records(
    run: Runner, fivetran: FakeFivetran
) -> None:
    names = [f"connector_{number}" for number in range(50)]
    fivetran.connections = {name: Connection(name) for name in names}
    processes = [
        run.start(FIVETRAN_CONNECTOR_ID=name, SHIPYARD_LOG_ID=f"log-{name}")
        for name in names
    ]
    for name, process in zip(names, processes):
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        record = run.artifacts / "variables" / f"log-{name}_force_sync.pickle"
        connector_id, execution_time = pickle.loads(record.read_bytes())
        assert connector_id == name
        assert fivetran.connections[name].syncs[-1] < execution_time
        response = run.artifacts / "responses" / f"sync_{name}_response.json"
        assert f"'{name}'" in json.loads(response.read_text())["message"]
    run.check_leftovers()
