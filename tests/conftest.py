"""Runs the script as its users do: as a process, against a local Fivetran."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_fivetran import FakeFivetran, Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

SCRIPT = Path(__file__).parent.parent / "fivetran_execute_sync.py"
API_KEY = "aK3yThatIsOnlyLocal"
API_SECRET = "aS3cretThatIsOnlyLocal"
CONNECTOR_ID = "speak_inexpensive"
UNKNOWN_ID = "no_such_connector"
INPUTS = {
    "FIVETRAN_API_KEY": API_KEY,
    "FIVETRAN_API_SECRET": API_SECRET,
    "FIVETRAN_CONNECTOR_ID": CONNECTOR_ID,
}
ARTIFACTS = Path("shipyard-artifacts", "fivetran-blueprints")
RESPONSE = Path("responses", f"sync_{CONNECTOR_ID}_response.json")
RECORD = Path("variables", "force_sync.pickle")

# Every exit code that there is; --help and the README are compared with this list.
EXIT_CODES = {0, 1, 2, 130, 143, 200, 201, 203, 204, 249}

# What a run says of the sync, in these words.
NOT_STARTED = "was not started"
MAYBE = "may have been started"
STARTED = "was started"

# How long a test waits for what should have happened long before, in seconds.
PATIENCE = 120

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ Connector [\w-]+: [ -~]+")


@dataclass
class Run:
    """A run that has ended: exit code, output, and the folder it ran in."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def lines(self) -> list[str]:
        return (self.out + self.err).splitlines()

    @property
    def last(self) -> str:
        """The last line, on the stream that the exit code belongs to."""
        return (self.err if self.code else self.out).splitlines()[-1]

    @property
    def truth(self) -> str:
        """What the run says of the sync, which it must say once, and at the end."""
        said = re.findall(r"The sync (.* started)\.", self.out + self.err)
        assert said == re.findall(r"The sync (.* started)\.", self.last), said
        (truth,) = said
        return str(truth)

    @property
    def waits(self) -> list[float]:
        """The waits before another try that were announced, in seconds."""
        return [float(wait) for wait in re.findall(r"again in (\d+\.\d) s", self.out)]

    @property
    def response(self) -> Any:
        (path,) = (self.folder / ARTIFACTS / "responses").iterdir()
        return json.loads(path.read_text(encoding="utf-8"))

    @property
    def record(self) -> tuple[str, datetime] | None:
        """What Check Sync Status loads, and as it does."""
        for path in (self.folder / ARTIFACTS / "variables").iterdir():
            with path.open("rb") as f:
                connector_id, execution_time = pickle.load(f)
            return connector_id, execution_time
        return None


class Runner:
    """Starts the script in a folder of its own, with nothing in its environment but what
    it is given; checks of every run what holds of every run."""

    def __init__(self, fivetran: FakeFivetran, folder: Path) -> None:
        self.fivetran = fivetran
        self.folder = folder
        self.command = [sys.executable, str(SCRIPT)]
        self.environment = fivetran.environment({"PATH": os.environ["PATH"], **INPUTS})
        self.artifacts = folder / ARTIFACTS
        folder.mkdir()

    def start(self, *arguments: str, **variables: str | None) -> subprocess.Popen[str]:
        """Start the script; a variable that is None is taken out of its environment."""
        self.seen = len(self.fivetran.requests)
        changed = {**self.environment, **variables}
        return subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.folder,
            env={name: value for name, value in changed.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def finish(self, process: subprocess.Popen[str], already_read: str = "") -> Run:
        """Wait for the process, and check what holds of every run that has sent, or could
        have: what it says, what it shows, and what it leaves."""
        out, err = process.communicate(timeout=PATIENCE)
        run = Run(process.returncode, already_read + out, err, self.folder)
        print(run.code, *run.lines, sep="\n")  # for the report of a test that fails
        for line in run.lines:
            assert LINE.fullmatch(line), "not a line of printable text with its time"
        assert len(run.err.splitlines()) == bool(run.code), (
            "stderr: one line if it fails"
        )
        assert run.code in EXIT_CODES, "an exit code that nobody has heard of"
        if run.code != 1:
            accepted = run.truth == STARTED
            assert accepted == (run.code == 0), "exit code and line differ"
        self.check_truth(run, self.fivetran.requests[self.seen :])
        self.check_secrets(run)
        self.check_leftovers()
        return run

    def __call__(self, *arguments: str, **variables: str | None) -> Run:
        return self.finish(self.start(*arguments, **variables))

    def until_line(
        self, words: str, *arguments: str, **variables: str | None
    ) -> tuple[subprocess.Popen[str], str]:
        """Start the script; return it when it has said this, and all that it has said."""
        process = self.start(*arguments, **variables)
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if words in line:
                return process, said
        raise AssertionError(f"It never said {words}, but {said}")

    def until_first_wait(
        self, number: int, *arguments: str, **variables: str | None
    ) -> Run:
        """Run the script until it waits for its second try, then send it a signal."""
        process, said = self.until_line("Trying again in ", *arguments, **variables)
        process.send_signal(number)
        return self.finish(process, said)

    def check_truth(self, run: Run, requests: list[Request]) -> None:
        """What the run says of the sync agrees with what the local Fivetran said."""
        statuses = [request.status or 0 for request in requests]
        unclear = [status for status in statuses if not 400 <= status < 500]
        if run.truth == NOT_STARTED:
            assert not unclear, "it may have been started"
        elif run.truth == MAYBE:  # perhaps it ended before the request arrived
            in_time = run.code not in (130, 143) and ": not within " not in run.last
            assert unclear or not in_time, "it was not started"
        else:
            assert statuses[-1] == 200, "nobody said that it was started"

    def check_secrets(self, run: Run) -> None:
        """No run shows or keeps a secret."""
        pair = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
        for secret in (API_KEY, API_SECRET, pair, "pa55"):
            assert secret not in run.out + run.err, "a secret is shown"
            for path in self.folder.rglob("*"):
                assert secret not in path.name, "a secret is the name of a file"
                if path.is_file():
                    assert secret.encode() not in path.read_bytes(), "a secret is kept"

    def check_leftovers(self) -> None:
        """No run leaves anything but artifacts."""
        for path in self.artifacts.rglob("*"):
            assert re.fullmatch(r"\w.*(response\.json|sync\.pickle)|\w+", path.name), (
                path
            )


def execute(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is, and return its output as text."""
    usual = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, check=False, **{**usual, **options})


def in_own_mounts(script: str, command: list[str]) -> list[str]:
    """Return the command that runs another one after a shell script, as "$@", where the
    mounts that the script makes are seen by nobody else."""
    return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


def can_mount() -> bool:
    trial = in_own_mounts("mount --bind /etc/hosts /etc/nsswitch.conf", [])
    return bool(shutil.which("unshare")) and not execute(trial).returncode


needs_mounts = pytest.mark.skipif(
    not can_mount(), reason="takes Linux and root, to mount"
)


@pytest.fixture
def fivetran() -> Iterator[FakeFivetran]:
    with FakeFivetran(INPUTS) as server:
        yield server


@pytest.fixture
def run(fivetran: FakeFivetran, tmp_path: Path) -> Runner:
    return Runner(fivetran, tmp_path / "work")
