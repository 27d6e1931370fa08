"""The fixtures; what they are made of is in harness.py."""

import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
from fake_fivetran import FakeFivetran
from harness import INPUTS, Script, in_own_mounts

# Nothing is kept from one session to the next.
hypothesis.settings.register_profile(
    "quick", max_examples=100, deadline=None, database=None
)
hypothesis.settings.load_profile("quick")

# `pytest &` may have been started with it ignored, and every run would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Start the tests that wait longest first."""
    items.sort(key=lambda item: "test_time" not in item.nodeid)


@pytest.fixture
def tmp_path():
    """In place of pytest's own, which keeps the folders of the last three sessions."""
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
    """Let the script look up names in these files, and in no others."""

    def replace(hosts="", resolv_conf=""):
        mounts = ""
        for path, content in (
            ("/etc/hosts", hosts),
            ("/etc/resolv.conf", resolv_conf),
            ("/etc/nsswitch.conf", f"hosts: files {'dns' if resolv_conf else ''}\n"),
        ):
            other = tmp_path / path.replace("/", "_")
            other.write_text(content)
            mounts += f"mount --bind {other} {path} && "
        script.command = in_own_mounts(f'{mounts} exec "$@"', script.command)

    return replace
