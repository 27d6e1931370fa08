"""Output never holds up the sync, and is one line of plain text for every event."""

from __future__ import annotations

import os
import re
import subprocess
import time
from datetime import datetime, timezone

import pytest
from conftest import CONNECTOR_ID, LINE, Runner, execute
from fake_fivetran import FakeFivetran
from faults import reply, stall


def test_every_line_begins_with_the_time_in_utc(
    run: Runner, fivetran: FakeFivetran
) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    fivetran.faults.append(reply(503))
    result = run(TZ="Asia/Kolkata")
    lines = (result.out + result.err).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert LINE.fullmatch(line)
        moment = datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%SZ")
        assert (
            before <= moment.replace(tzinfo=timezone.utc) <= datetime.now(timezone.utc)
        )


def test_something_is_said_before_the_wait(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(stall("answer"))
    process = run.start("--timeout=3")
    assert process.stdout is not None
    assert "Forcing a sync" in process.stdout.readline()
    assert process.poll() is None
    run.finish(process)


SHELL = {
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "stdin closed": "<&-",
    "all closed": "<&- >&- 2>&-",
    "stdout full": ">/dev/full",
    "both full": ">/dev/full 2>&1",
    "a reader that has gone": "| head -0",
    "a reader that has gone, of both": "2>&1 | head -0",
}


@pytest.mark.parametrize("name", SHELL)
@pytest.mark.parametrize("status", [200, 503])
def test_output_that_nobody_takes_does_not_hold_up_the_sync(
    run: Runner, fivetran: FakeFivetran, name: str, status: int
) -> None:
    if status == 503:
        fivetran.faults.append(reply(503))  # so that there is something on stderr too
    command = f'set -o pipefail; "$@" {SHELL[name]}'
    process = execute(
        ["bash", "-c", command, "bash", *run.command],
        cwd=run.folder,
        env=run.environment,
    )
    assert process.returncode == 0
    assert "Traceback" not in process.stderr
    assert "Exception" not in process.stderr
    assert fivetran.connections[CONNECTOR_ID].syncing
    response = run.artifacts / "responses" / f"sync_{CONNECTOR_ID}_response.json"
    assert '"Success"' in response.read_text()
    assert (run.artifacts / "variables" / "force_sync.pickle").stat().st_size > 0


def test_a_pipe_that_is_full_does_not_hold_up_the_sync(
    run: Runner, fivetran: FakeFivetran
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    process = subprocess.Popen(
        run.command, cwd=run.folder, env=run.environment, stdout=writer, stderr=writer
    )
    start = time.monotonic()
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - start < 30
    assert fivetran.connections[CONNECTOR_ID].syncing
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX"},
    ],
    ids=str,
)
def test_a_terminal_that_only_takes_ascii_gets_ascii(
    run: Runner, fivetran: FakeFivetran, variables: dict[str, str]
) -> None:
    fivetran.faults.append(
        reply(200, '{"code": "Success", "message": "gestartet: größer ✓"}')
    )
    folder = "ärtifacts"
    result = run(SHIPYARD_ARTIFACTS_DIRECTORY=folder, **variables)
    assert result.code == 0
    assert "gestartet: gr" in result.out
    if "PYTHONIOENCODING" in variables:
        assert r"gr\xf6\xdfer \u2713" in result.out
        assert result.out.isascii()


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=str
)
def test_secrets_of_any_bytes_work_in_any_locale(
    run: Runner, fivetran: FakeFivetran, variables: dict[str, str]
) -> None:
    fivetran.credentials = ("clé-de-l'API", "ключ-и-секрет")
    result = run(
        FIVETRAN_API_KEY="clé-de-l'API",
        FIVETRAN_API_SECRET="ключ-и-секрет",
        **variables,
    )
    assert result.code == 0


def test_warnings_of_others_are_not_printed(run: Runner) -> None:
    assert run(PYTHONWARNINGS="default").err == ""


def test_output_stays_whole_when_many_share_it(
    run: Runner, fivetran: FakeFivetran
) -> None:
    command = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "$@" & done; wait'
    process = execute(
        ["bash", "-c", command, "bash", *run.command],
        cwd=run.folder,
        env=run.environment,
    )
    lines = process.stdout.splitlines()
    assert len(lines) == 36
    assert all(LINE.fullmatch(line) for line in lines)
    assert len(re.findall("Forcing", process.stdout)) == 12
