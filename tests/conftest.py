"""Runs the script as its users do: as a process, against a local Fivetran."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_fivetran import FakeFivetran

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parent.parent / "fivetran_execute_sync.py"
API_KEY = "aK3yThatIsOnlyLocal"
API_SECRET = "aS3cretThatIsOnlyLocal"
CONNECTOR_ID = "speak_inexpensive"
ARTIFACTS = Path("shipyard-artifacts", "fivetran-blueprints")

# How long a test waits for a process that should have ended long before, in seconds.
PATIENCE = 60

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S.*")


@dataclass
class Run:
    """A run that has ended: exit code, output, and the folder it ran in."""

    code: int
    out: str
    err: str
    folder: Path
    artifacts: Path

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

    @property
    def kept_nothing(self) -> bool:
        return not [path for path in self.folder.rglob("*") if path.is_file()]


@dataclass
class Runner:
    """Starts the script in a folder of its own, with nothing in its environment but what
    it is given; checks of every run what holds of every run."""

    fivetran: FakeFivetran
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {
            **self.fivetran.environment({"PATH": os.environ["PATH"]}),
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_CONNECTOR_ID": CONNECTOR_ID,
        }

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(SCRIPT)]

    @property
    def artifacts(self) -> Path:
        return self.folder / ARTIFACTS

    def start(self, *arguments: str, **variables: str | None) -> subprocess.Popen[str]:
        """Start the script; a variable that is None is taken out of its environment."""
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

    def finish(self, process: subprocess.Popen[str]) -> Run:
        """Wait for the process, and check what holds of every run."""
        out, err = process.communicate(timeout=PATIENCE)
        run = Run(process.returncode, out, err, self.folder, self.artifacts)
        assert "Traceback" not in err
        for line in (out + err).splitlines():
            assert LINE.fullmatch(line), line
        self.check_secrets(run)
        self.check_leftovers()
        return run

    def __call__(self, *arguments: str, **variables: str | None) -> Run:
        return self.finish(self.start(*arguments, **variables))

    def check_secrets(self, run: Run) -> None:
        """No run shows or keeps a secret."""
        credentials = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
        for secret in (API_KEY, API_SECRET, credentials):
            assert secret not in run.out + run.err
            for path in self.folder.rglob("*"):
                assert secret not in path.name
                assert not path.is_file() or secret.encode() not in path.read_bytes()

    def check_leftovers(self) -> None:
        """No run leaves anything but artifacts."""
        for path in self.folder.rglob("*"):
            assert path.name.endswith((".json", ".pickle")) or not path.is_file(), path
            assert not path.name.startswith((".", "tmp")), path


def execute(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is, and return its output as text."""
    usual = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, check=False, **{**usual, **options})


@pytest.fixture
def fivetran() -> Iterator[FakeFivetran]:
    with FakeFivetran(API_KEY, API_SECRET, (CONNECTOR_ID,)) as server:
        yield server


@pytest.fixture
def run(fivetran: FakeFivetran, tmp_path: Path) -> Runner:
    return Runner(fivetran, tmp_path)
