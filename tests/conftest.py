"""The fixtures; what they are made of is in harness.py."""

import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
from fake_fivetran import FakeFivetran
from harness import Script

hypothesis.settings.register_profile("suite", deadline=None, database=None)
hypothesis.settings.load_profile("suite")

# `pytest &` may have been started with it ignored, and every run would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tmp_path():
    """In place of pytest's own, which keeps folders of earlier sessions."""
    with tempfile.TemporaryDirectory(prefix="fivetran_test_") as folder:
        yield Path(folder)


@pytest.fixture
def fivetran():
    with FakeFivetran() as server:
        yield server


@pytest.fixture
def script(fivetran, tmp_path):
    return Script(fivetran, tmp_path / "work")
