"""The fixtures; what they are made of is in harness.py."""

import itertools
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
from fake_fivetran import FakeFivetran
from harness import INPUTS, Script, in_own_mounts

# Nothing is kept from one session to the next.
hypothesis.settings.register_profile("suite", deadline=None, database=None)
hypothesis.settings.load_profile("suite")

# `pytest &` may have been started with it ignored, and every run would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Start the tests that wait long first, one in each pair that xdist hands out."""
    long = [item for item in items if "test_time" in item.nodeid]
    others = [item for item in items if item not in long]
    pairs = itertools.zip_longest(long, others)
    items[:] = [item for pair in pairs for item in pair if item]


@pytest.fixture
def tmp_path():
    """In place of pytest's own, which keeps folders of earlier sessions."""
    with tempfile.TemporaryDirectory(prefix="fivetran_test_") as folder:
        yield Path(folder)


@pytest.fixture
def fivetran():
    with FakeFivetran(INPUTS) as server:
        yield server
        assert not server.faults, "a fault that did not happen"


@pytest.fixture
def script(fivetran, tmp_path):
    return Script(fivetran, tmp_path / "work")


@pytest.fixture
def name_lookup(script, tmp_path):
    """Let the script look up names in these lines of /etc/hosts, and nowhere else."""

    def replace(hosts=""):
        files = {"/etc/hosts": hosts, "/etc/nsswitch.conf": "hosts: files\n"}
        mounts = ""
        for path, content in files.items():
            other = tmp_path / path.replace("/", "_")
            other.write_text(content)
            mounts += f"mount --bind {other} {path} && "
        script.command = in_own_mounts(f'{mounts} exec "$@"', script.command)

    return replace
