"""Runs the script as its users do: as a process, against a local Fivetran."""

import base64
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_fivetran import FakeFivetran
from faults import stall

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
TOKEN = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
ARTIFACTS = Path("shipyard-artifacts", "fivetran-blueprints")

# Every exit code that there is; --help and the README are compared with this list.
EXIT_CODES = {0, 1, 2, 130, 143, 200, 201, 203, 204, 249}

# What a run says of the sync, in these words.
NOT_STARTED = "was not started"
MAYBE = "may have been started"
STARTED = "was started"

# How long a test waits for what should have happened long before, in seconds.
PATIENCE = 120

# `pytest &` may have been started with it ignored, and every run would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ Connector [\w-]+: [ -~]+")


class Run(NamedTuple):
    """A run that has ended: exit code, output, and its artifacts."""

    code: int
    out: str
    err: str
    response_path: Path
    record_path: Path

    @property
    def last(self):
        """The last line, on the stream that the exit code belongs to."""
        return (self.err if self.code else self.out).splitlines()[-1]

    @property
    def truth(self):
        """What the run says of the sync, which it must say once, and at the end."""
        (truth,) = re.findall(r"The sync (.* started)\.", self.out + self.err)
        assert f". The sync {truth}." in self.last, "not said at the end"
        return truth

    @property
    def waits(self):
        """The waits before another try that were announced, in seconds."""
        return [float(wait) for wait in re.findall(r"again in (\d+\.\d) s", self.out)]

    @property
    def response(self):
        return json.loads(self.response_path.read_text(encoding="utf-8"))

    @property
    def record(self):
        """What Check Sync Status loads, and as it does; None if there is nothing."""
        if not self.record_path.exists():
            return None
        with self.record_path.open("rb") as f:
            connector_id, execution_time = pickle.load(f)
        return connector_id, execution_time


class Runner:
    """Starts the script in a folder of its own, with nothing in its environment but what
    it is given; checks of every run what holds of every run."""

    def __init__(self, fivetran, folder):
        self.fivetran = fivetran
        self.folder = folder
        self.command = [sys.executable, str(SCRIPT)]
        self.environment = fivetran.environment({"PATH": os.environ["PATH"], **INPUTS})
        self.responses = folder / ARTIFACTS / "responses"
        self.variables = folder / ARTIFACTS / "variables"
        self.response = self.responses / f"sync_{CONNECTOR_ID}_response.json"
        self.record = self.variables / "force_sync.pickle"
        folder.mkdir()

    def start(self, *arguments, **variables):
        """Start the script; a variable that is None is taken out of its environment."""
        self.seen = len(self.fivetran.requests)
        changed = {**self.environment, **variables}
        connector_id = changed["FIVETRAN_CONNECTOR_ID"]
        self.response = self.response.with_name(f"sync_{connector_id}_response.json")
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

    def finish(self, process, already_read=""):
        """Wait for the process; check what holds of every run that has valid inputs."""
        out, err = process.communicate(timeout=PATIENCE)
        run = self.ended(process.returncode, already_read + out, err)
        print(*run[:3], sep="\n")  # for the report of a test that fails
        for line in (run.out + run.err).splitlines():
            assert LINE.fullmatch(line), "not a line of printable text with its time"
        assert len(run.err.splitlines()) == bool(run.code), "one line if it fails"
        assert run.code in EXIT_CODES, "an exit code that nobody has heard of"
        if run.code != 1:
            assert (run.truth == STARTED) == (run.code == 0), (
                "exit code and line differ"
            )
        self.check_truth(run)
        self.check_files(run)
        return run

    def __call__(self, *arguments, **variables):
        return self.finish(self.start(*arguments, **variables))

    def ended(self, code, out="", err=""):
        return Run(code, out, err, self.response, self.record)

    def until_stage(self, stage):
        """Start the script; return it when it waits at this stage of its request."""
        reached = threading.Event()
        self.fivetran.faults.append(stall(stage, then=reached.set))
        process = self.start()
        assert reached.wait(PATIENCE)
        return process

    def until_first_wait(self, number):
        """Run the script until it waits for its second try, then send it a signal."""
        process = self.start()
        said = self.read_line(process) + self.read_line(process)
        assert "Trying again in " in said
        process.send_signal(number)
        return self.finish(process, said)

    def read_line(self, process):
        """Return the next line of a run, and leave what follows to communicate()."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(process.stdout.fileno(), 1)
            assert byte, line
            line += byte
        return line.decode()

    def check_truth(self, run):
        """What the run says of the sync agrees with what the local Fivetran said."""
        statuses = [
            request.status or 0 for request in self.fivetran.requests[self.seen :]
        ]
        unclear = [status for status in statuses if not 400 <= status < 500]
        if run.truth == NOT_STARTED:
            assert not unclear, "it may have been started"
        elif run.truth == MAYBE:  # perhaps the run ended before the request arrived
            in_time = run.code not in (130, 143) and ": not within " not in run.last
            assert unclear or not in_time, "it was not started"
        else:
            assert statuses[-1] == 200, "nobody said that it was started"

    def check_files(self, run):
        """No secret is shown or kept, and nothing is left behind but artifacts."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        for secret in (API_KEY, API_SECRET, TOKEN, "pa55"):
            assert secret not in run.out + run.err, "a secret is shown"
            for path in files:
                assert secret.encode() not in path.read_bytes(), "a secret is kept"
        for path in files:
            assert re.fullmatch(r"\w.*\.(json|pickle)", path.name), "left behind"


def execute(command, **options):
    """Run a command to its end, whatever that is, and return its output as text."""
    usual = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, check=False, **{**usual, **options})


def in_own_mounts(script, command):
    """Return the command that runs another one after a shell script, as "$@", where the
    mounts that the script makes are seen by nobody else."""
    return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


def can_mount():
    trial = in_own_mounts("mount --bind /etc/hosts /etc/nsswitch.conf", [])
    return shutil.which("unshare") and not execute(trial).returncode


def pytest_collection_modifyitems(items):
    """Start the tests that wait longest first."""
    items.sort(key=lambda item: "test_time" not in item.nodeid)


needs_mounts = pytest.mark.skipif(not can_mount(), reason="mounts take root, and Linux")


@pytest.fixture
def fivetran():
    with FakeFivetran(INPUTS) as server:
        yield server


@pytest.fixture
def run(fivetran, tmp_path):
    return Runner(fivetran, tmp_path / "work")


@pytest.fixture
def system_file(run, tmp_path):
    """Let the script find another content in a file of the system, and nobody else."""

    def replace(path, content):
        other = tmp_path / path.replace("/", "_")
        other.write_text(content)
        mount = f'mount --bind {other} {path} && exec "$@"'
        run.command = in_own_mounts(mount, run.command)

    return replace
