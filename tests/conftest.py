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
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_fivetran import FakeFivetran, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parent.parent / "fivetran_execute_sync.py"
API_KEY = "aK3yThatIsOnlyLocal"
API_SECRET = "aS3cretThatIsOnlyLocal"
CONNECTOR_ID = "speak_inexpensive"
UNKNOWN_ID = "no_such_connector"
ARTIFACTS = Path("shipyard-artifacts", "fivetran-blueprints")
RESPONSE = Path("responses", f"sync_{CONNECTOR_ID}_response.json")
RECORD = Path("variables", "force_sync.pickle")

# Every exit code that there is. --help, the README and the Guardrails are compared
# with this list, and so is the script: no run may end with another one.
EXIT_CODES = {0, 1, 2, 130, 143, 200, 201, 203, 204, 249}

# What a run says of the sync, in these words.
NOT_STARTED = "was not started"
MAYBE = "may have been started"
STARTED = "was started"
TRUTHS = (NOT_STARTED, MAYBE, STARTED)

# How long a test waits for what should have happened long before, in seconds.
PATIENCE = 120

README = (SCRIPT.parent / "README.md").read_text(encoding="utf-8")

# The first words of the lines that the README explains; … stands for anything.
TROUBLES = [
    re.escape(words).replace("…", ".*")
    for row in re.findall(r"^\| (`.*?`) \| ", README, re.MULTILINE)
    for words in re.findall(r"`([^`]*)`", row)
]

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S.*")


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
        """The last line on the stream that the exit code belongs to."""
        return (self.err if self.code else self.out).splitlines()[-1]

    @property
    def truth(self) -> str:
        """What the run says of the sync, which it must say once, and at the end."""
        said: list[str] = re.findall("|".join(TRUTHS), self.out + self.err)
        assert len(said) == 1
        assert said[0] in self.last
        return said[0]

    @property
    def waits(self) -> list[float]:
        """The waits before another try that were announced, in seconds."""
        return [float(wait) for wait in re.findall(r"again in (\d+\.\d) s", self.err)]

    @property
    def artifacts(self) -> Path:
        return self.folder / ARTIFACTS

    @property
    def response_path(self) -> Path:
        (path,) = (self.artifacts / "responses").iterdir()
        return path

    @property
    def response(self) -> Any:
        return json.loads(self.response_path.read_text(encoding="utf-8"))

    @property
    def record_path(self) -> Path:
        (path,) = (self.artifacts / "variables").iterdir()
        return path

    @property
    def record(self) -> tuple[str, datetime]:
        """What Check Sync Status loads, and as it does."""
        with self.record_path.open("rb") as f:
            connector_id, execution_time = pickle.load(f)
        return connector_id, execution_time


class Runner:
    """Starts the script in a folder of its own, with nothing in its environment but what
    it is given; checks of every run what holds of every run."""

    def __init__(self, fivetran: FakeFivetran, folder: Path) -> None:
        self.fivetran = fivetran
        self.folder = folder
        self.command = [sys.executable, str(SCRIPT)]
        self.environment = {
            **fivetran.environment({"PATH": os.environ["PATH"]}),
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_CONNECTOR_ID": CONNECTOR_ID,
        }
        del self.environment["https_proxy"]  # which would beat HTTPS_PROXY
        folder.mkdir()

    @property
    def artifacts(self) -> Path:
        return self.folder / ARTIFACTS

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
        """Wait for the process, and check what holds of every run that ends by itself."""
        out, err = process.communicate(timeout=PATIENCE)
        run = Run(process.returncode, out, already_read + err, self.folder)
        print(run.code, *run.lines, sep="\n")  # for the report of a test that fails
        assert all(LINE.fullmatch(line) for line in run.lines)
        assert run.code in EXIT_CODES
        assert (run.truth == STARTED) == (run.code == 0) or run.code == 1
        if run.code:
            _, said = run.last.split(" ", 1)
            said = re.sub(r"^Connector [\w-]*: ", "", said)
            assert any(re.match(words, said) for words in TROUBLES), said
        self.check_truth(run, self.fivetran.requests[self.seen :])
        self.check_secrets(run)
        self.check_leftovers()
        return run

    def __call__(self, *arguments: str, **variables: str | None) -> Run:
        return self.finish(self.start(*arguments, **variables))

    def until_first_wait(
        self, *arguments: str, **variables: str | None
    ) -> tuple[subprocess.Popen[str], str]:
        """Start the script; return it when it waits, and its line that says so."""
        process = self.start(*arguments, **variables)
        assert process.stderr
        line = process.stderr.readline()
        assert "Trying again in " in line, line
        return process, line

    def check_truth(self, run: Run, requests: list[Request]) -> None:
        """What the run says of the sync agrees with what the local Fivetran saw."""
        unclear = [
            request.status
            for request in requests
            if not request.status or not 300 <= request.status < 500
        ]
        if run.truth == NOT_STARTED:
            assert not unclear
        elif run.truth == MAYBE:  # it may have been ended before the request arrived
            assert unclear or run.code in (130, 143) or " within " in run.last
        else:
            assert unclear
            assert unclear[-1] in range(200, 300)

    def check_secrets(self, run: Run) -> None:
        """No run shows or keeps a secret."""
        credentials = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
        for secret in (API_KEY, API_SECRET, credentials, "pa55"):
            assert secret not in run.out + run.err
            for path in self.folder.rglob("*"):
                assert secret not in path.name
                assert not path.is_file() or secret.encode() not in path.read_bytes()

    def check_leftovers(self) -> None:
        """No run leaves anything but artifacts."""
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert path.suffix in (".json", ".pickle"), path
                assert not path.name.startswith("."), path

    def kept(self) -> list[bytes]:
        """Return what is in both artifacts."""
        return [(self.artifacts / path).read_bytes() for path in (RESPONSE, RECORD)]

    def refused(self, run: Run, code: int) -> str:
        """Check that a run ended before it sent or kept anything; return its only line."""
        assert (run.code, run.out, run.truth) == (code, "", NOT_STARTED)
        assert not self.fivetran.tunnels
        assert not [path for path in self.folder.rglob("*") if path.is_file()]
        (line,) = run.err.splitlines()
        return line


def execute(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is, and return its output as text."""
    usual = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, check=False, **{**usual, **options})


def in_own_mounts(script: str, command: list[str]) -> list[str]:
    """Return the command that runs another one after a shell script, as "$@", where the
    mounts that the script makes are seen by nobody else."""
    return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


def can_mount() -> bool:
    mount = "mount -t tmpfs none /mnt && mount --bind /etc/hosts /etc/nsswitch.conf"
    return (
        bool(shutil.which("unshare"))
        and not execute(in_own_mounts(mount, [])).returncode
    )


needs_mounts = pytest.mark.skipif(not can_mount(), reason="takes root, to mount")


@pytest.fixture
def fivetran() -> Iterator[FakeFivetran]:
    with FakeFivetran(API_KEY, API_SECRET, (CONNECTOR_ID,)) as server:
        yield server


@pytest.fixture
def run(fivetran: FakeFivetran, tmp_path: Path) -> Runner:
    return Runner(fivetran, tmp_path / "work")
