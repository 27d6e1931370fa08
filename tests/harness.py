"""Runs the script as its users do: as a process, against the local Fivetran.

Whatever must hold of every run is checked of every run, in Script.finish().
"""

import base64
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from subprocess import PIPE

import pytest
from faults import after

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
ENCODED = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
PROXY_PASSWORD = "pa55"
ARTIFACTS = Path("shipyard-artifacts", "fivetran-blueprints")

# Every exit code that there is; --help and the README are compared with this list.
EXIT_CODES = {0, 1, 2, 130, 143, 200, 201, 203, 204, 249}

# What a run says about the sync, in these words.
STARTED = "The sync was started."
MAYBE_STARTED = "The sync may have been started."
NOT_STARTED = "The sync was not started."

# How long a test waits for what should have happened long before, in seconds.
PATIENCE = 120

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ Connector ([\w-]+): ([ -~]+)")


class Run:
    """A run that has ended: exit code, output, and the artifacts that it left."""

    def __init__(self, script, code, out, err):
        self.code = code
        self.out = out
        self.err = err
        self.response = self.record = None
        if script.response_file.is_file():
            self.response = json.loads(script.response_file.read_text(encoding="utf-8"))
        if script.record_file.is_file():
            self.record = pickle.loads(script.record_file.read_bytes())

    @property
    def verdict(self):
        """The last line without time and connector, from where the exit code puts it."""
        last = (self.err if self.code else self.out).splitlines()[-1]
        return LINE.fullmatch(last)[2]

    @property
    def sync(self):
        """What the run says about the sync: the beginning of the verdict."""
        (said,) = re.findall(r"The sync [a-z ]*started\.", self.out + self.err)
        assert self.verdict.startswith(said) and self.verdict[-1] == ".", self.verdict
        return said

    @property
    def waits(self):
        """The waits before another try that were announced, in seconds."""
        return [float(wait) for wait in re.findall(r"again in (\d+\.\d) s", self.out)]


class Script:
    """The script, in a folder and an environment of its own."""

    def __init__(self, fivetran, folder):
        self.fivetran = fivetran
        self.folder = folder
        self.command = [sys.executable, str(SCRIPT)]
        self.environment = fivetran.environment({"PATH": os.environ["PATH"], **INPUTS})
        self.record_file = folder / ARTIFACTS / "variables" / "force_sync.pickle"
        self.numbers = itertools.count()
        folder.mkdir()

    def start(self, *arguments, stdout=PIPE, stderr=PIPE, **variables):
        """Start the script; a variable that is None is taken out of its environment."""
        client = f"client{next(self.numbers)}"
        name = f"//{client}:{PROXY_PASSWORD}@"
        own_proxy = {"HTTPS_PROXY": self.fivetran.proxy_url.replace("//", name)}
        changed = {**self.environment, **own_proxy, **variables}
        name = f"sync_{changed['FIVETRAN_CONNECTOR_ID']}_response.json"
        self.response_file = self.folder / ARTIFACTS / "responses" / name
        process = subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.folder,
            env={name: value for name, value in changed.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,  # a test may read lines, and leave what follows to finish()
        )
        # The name by which the local Fivetran knows it.
        process.client = "" if "HTTPS_PROXY" in variables else client
        return process

    def finish(self, process):
        """Wait for the end of a run, check it, and return it."""
        try:
            output = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        run = Run(self, process.returncode, *[part.decode() for part in output])
        print(run.code, run.out, run.err, sep="\n")  # shown if the test fails
        check_output(run)
        check_truth(run, self.requests_of(process))
        self.check_files(run)
        return run

    def run(self, *arguments, **variables):
        return self.finish(self.start(*arguments, **variables))

    def start_until(self, fault):
        """Start the script, and wait until this fault has come to hold it up."""
        reached = threading.Event()
        self.fivetran.faults.append(after(reached.set, fault))
        process = self.start()
        assert reached.wait(PATIENCE)
        return process

    def requests_of(self, process):
        """Return what the local Fivetran has received from a run."""
        requests = self.fivetran.requests
        return [request for request in requests if request.client == process.client]

    def check_files(self, run):
        """No secret is shown or kept, and nothing is left behind but artifacts."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        for secret in (API_KEY, API_SECRET, ENCODED, PROXY_PASSWORD):
            assert secret not in run.out + run.err, "a secret is shown"
            for path in files:
                assert secret.encode() not in path.read_bytes(), "a secret is kept"
        for path in files:
            assert re.fullmatch(r"\w.*\.(json|pickle)", path.name), "left behind"


def check_output(run):
    """What holds of the exit code and the output of every run with valid inputs."""
    assert run.code in EXIT_CODES, "an exit code that nobody has heard of"
    for line in (run.out + run.err).splitlines():
        assert LINE.fullmatch(line), "not a line of printable text with its time"
        assert not re.search(r"\.\.( |$)|\.;", line), "two full stops"
    assert len(run.err.splitlines()) == bool(run.code), "one line if it fails"
    if run.code != 1:  # then an artifact may be missing after the sync was started
        assert (run.sync == STARTED) == (run.code == 0), "exit code and line differ"


def check_truth(run, requests):
    """What a run says about the sync is what the local Fivetran has done.

    Not judged: "may have been started" of a run that a signal or the timeout ended. What
    it had sent may not have arrived whole, and what was answered may not have been read.
    """
    done = [request.sync for request in requests]
    if run.sync == STARTED:
        assert done[-1] == "started", "the answer was not that it was started"
    elif run.sync == NOT_STARTED:
        assert set(done) <= {"refused"}, "it may have been started"
    elif run.code not in (130, 143) and ": timed out after " not in run.verdict:
        assert set(done) - {"refused"}, "it was not started"


def execute(command, **options):
    """Run a command to its end, whatever that is, and return its output as text."""
    usual = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, check=False, **{**usual, **options})


def wait_until(condition):
    """Wait until a condition holds that no event reports."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_own_mounts(shell_script, command):
    """Return the command for a shell script that can mount, and runs another as "$@"."""
    return ["unshare", "--mount", "sh", "-c", shell_script, "sh", *command]


def can_mount():
    trial = in_own_mounts("mount --bind /etc/hosts /etc/nsswitch.conf", [])
    return shutil.which("unshare") and not execute(trial).returncode


needs_mounts = pytest.mark.skipif(not can_mount(), reason="mounts take root, and Linux")
