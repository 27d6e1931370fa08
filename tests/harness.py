"""Runs the script as a process, against the local Fivetran, and checks each run."""

import base64
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import PIPE

from fake_fivetran import INPUTS
from faults import after

SCRIPT = Path(__file__).parent.parent / "fivetran_execute_sync.py"
API_KEY, API_SECRET, CONNECTOR_ID = INPUTS.values()
# In Base64, as in the Authorization header, but without the padding, which it has.
ENCODED, _ = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode().split("=")
PROXY_PASSWORD = "pa55"
FILES = Path("shipyard-artifacts", "fivetran-blueprints")
RESPONSE_FILE = FILES / f"responses/sync_{CONNECTOR_ID}_response.json"
RECORD_FILE = FILES / "variables/force_sync.pickle"

# Every exit code that there is; --help and the README are compared with this list.
EXIT_CODES = {0, 1, 2, 130, 143, 200, 201, 203, 204, 249}

STARTED = "The sync was started."
MAYBE_STARTED = "The sync may have been started."
NOT_STARTED = "The sync was not started."
RESTART = " If the connector is syncing, running this again restarts the sync."

PATIENCE = 120  # seconds that a test waits for what should have happened long before
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ Connector ([\w-]+): ([ -~]+)")


class Run:
    """A run that has ended: exit code, output, and the files that it left."""

    def __init__(self, folder, code, out, err):
        self.folder, self.code, self.out, self.err = folder, code, out, err
        response, record = folder / RESPONSE_FILE, folder / RECORD_FILE
        self.response = response.is_file() and json.loads(response.read_bytes())
        self.record = record.is_file() and pickle.loads(record.read_bytes())
        self.waits = [int(wait) for wait in re.findall(r"again in (\d+) s\.", out)]

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

    def check(self, requests):
        """What holds of every run with valid inputs that has sent these requests."""
        assert self.code in EXIT_CODES
        for line in (self.out + self.err).splitlines():
            assert LINE.fullmatch(line), "not a line of printable text with its time"
            assert not re.search(r"\.\.( |$)|  ", line), "two full stops or spaces"
        assert len(self.err.splitlines()) == bool(self.code), "one line if it fails"
        assert self.verdict.endswith(RESTART) == (self.sync == MAYBE_STARTED)
        # With exit code 1, a file may be missing after the sync was started.
        assert (self.sync == STARTED) == (self.code == 0) or self.code == 1
        self.check_truth([request.sync for request in requests])
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        for path in files:
            assert re.fullmatch(r"\w+\.(json|pickle|out)", path.name), "left behind"
        kept = b"".join(path.read_bytes() for path in files).decode(errors="replace")
        for secret in (API_KEY, API_SECRET, ENCODED, PROXY_PASSWORD):
            assert secret not in self.out + self.err + kept, "a secret is shown or kept"

    def check_truth(self, done):
        """What a run says about the sync is what the local Fivetran has done.

        Not judged: "may have been started" of a run that a signal or the timeout ended.
        What it had sent may not have arrived, or what was answered not have been read.
        """
        if self.sync == STARTED:
            assert done[-1] == "started", "the answer was not that it was started"
        elif self.sync == NOT_STARTED:
            assert set(done) <= {"refused"}, "it may have been started"
        elif self.code not in (130, 143) and "Timed out after " not in self.verdict:
            assert set(done) - {"refused"}, "it was not started"


class Script:
    """The script, in a folder and an environment of its own."""

    def __init__(self, fivetran, folder):
        self.fivetran, self.folder = fivetran, folder
        self.command = [sys.executable, str(SCRIPT)]
        self.environment = fivetran.environment({"PATH": os.environ["PATH"], **INPUTS})
        self.response_file = folder / RESPONSE_FILE
        self.record_file = folder / RECORD_FILE
        folder.mkdir()

    def start(self, *arguments, faults=(), stdout=PIPE, stderr=PIPE, **variables):
        """Start the script; it meets these faults, one for each try."""
        client = f"client{len(self.fivetran.faults)}"
        self.fivetran.faults[client] = list(faults)
        name = f"//{client}:{PROXY_PASSWORD}@"
        own_proxy = {"HTTPS_PROXY": self.fivetran.proxy_url.replace("//", name)}
        process = subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.folder,
            env={**self.environment, **own_proxy, **variables},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,  # a test may read lines, and leave what follows to finish()
        )
        process.client = "" if "HTTPS_PROXY" in variables else client
        return process

    def finish(self, process):
        """Wait for the end of a run, check it, and return it."""
        try:
            output = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        out, err = [(part or b"").decode() for part in output]
        print(process.returncode, out, err, sep="\n")  # shown if the test fails
        run = Run(self.folder, process.returncode, out, err)
        run.check(self.fivetran.requests_of(process.client))
        return run

    def run(self, *arguments, **options):
        return self.finish(self.start(*arguments, **options))

    def start_until(self, fault):
        """Start the script, and wait until this fault has come to hold it up."""
        reached = threading.Event()
        process = self.start(faults=[after(reached.set, fault)])
        assert reached.wait(PATIENCE)
        return process


def execute(command, **options):
    """Run a command to its end, whatever that is, and return its output as text."""
    usual = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, check=False, **{**usual, **options})


def full_pipe():
    """Return both ends of a pipe that takes nothing more, and how much is in it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = os.write(writer, bytes(2**20))
    os.set_blocking(writer, True)
    return reader, writer, filled
