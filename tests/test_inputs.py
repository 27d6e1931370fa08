"""Inputs: where they come from, and what happens when they make no sense."""

import os
import re
import sys
from unittest import mock

import pytest
from harness import ENCODED, INPUTS, SCRIPT, execute

from fivetran_execute_sync import argument_parser, read_inputs

HELP = argument_parser().format_help()
FLAGS = re.findall(r"(--\S+) [A-Z_]+\s+default: \$(\S+)", HELP)
REQUIRED = {flag: name for flag, name in FLAGS if name in INPUTS}


def read(*arguments, **environment):
    argv = mock.patch.object(sys, "argv", ["script", *arguments])
    with argv, mock.patch.object(os, "environ", environment):
        return read_inputs()


def test_each_comes_from_the_environment_or_an_argument_without_white_space_around():
    inputs = read(**INPUTS)
    values = (inputs.auth.username, inputs.auth.password, inputs.connector_id.encode())
    assert values == tuple(value.encode() for value in INPUTS.values())
    spaced = {name: f" \t{value}\r\n" for name, value in INPUTS.items()}
    arguments = [f"{flag}={spaced[name]}" for flag, name in REQUIRED.items()]
    assert read(**spaced) == read(*arguments) == inputs
    for flag, name in FLAGS:
        other = read(**{**INPUTS, name: "other"})
        assert read(f"{flag}=other", **INPUTS) == other != inputs


@pytest.fixture
def refused(capsys):
    """Return the last line of what is said of wrong inputs, in argparse's form."""

    def refused(*arguments, **variables):
        with pytest.raises(SystemExit) as ended:
            read(*arguments, **{**INPUTS, **variables})
        assert ended.value.code == 2
        *usage, line = capsys.readouterr().err.splitlines()
        assert usage[0].startswith("usage: ")
        return line.partition(" error: ")[2]

    return refused


def test_a_blank_argument_is_missing_whatever_its_variable_is(refused):
    """As with --connector-id "$ID" if ID is empty: no other connector is started."""
    all_of_them = ", ".join(f"{flag} or {name}" for flag, name in REQUIRED.items())
    assert refused(**dict.fromkeys(INPUTS, " \r\n")) == f"missing {all_of_them}"
    for flag, name in REQUIRED.items():
        assert refused(f"{flag}=") == refused(flag, " ") == f"missing {flag} or {name}"


def test_an_id_that_cannot_be_one_is_repeated(refused):
    for value in ("../../etc/passwd", "a\nb", "\u0661\uff41"):
        told = f"{value!r}: use letters, digits, _ and -"
        assert refused(FIVETRAN_CONNECTOR_ID=value) == f"invalid connector ID {told}"
        assert refused(SHIPYARD_LOG_ID=value) == f"invalid SHIPYARD_LOG_ID {told}"


def test_the_timeout_is_above_0_and_at_most_a_day(refused):
    for value in ("0", "-1", "nan", "86400.1", "1e300"):
        told = refused(f"--timeout={value}")
        assert told == "--timeout must be above 0 and at most 86400 seconds"
    assert read(**INPUTS).timeout == 120
    for seconds in (0.1, 86400):
        assert read(f"--timeout={seconds}", **INPUTS).timeout == seconds


def test_what_may_be_a_secret_is_not_repeated(refused):
    for words in ("--connector", "--", "--api-secret unknown-value"):
        assert "unknown-value" not in refused(words, "unknown-value")
    told = refused("--api-key=a-secret", "--connector-id=a-secret")
    assert told == "the connector ID is the same as the API key or secret"
    assert " SHIPYARD_LOG_ID '***='" in refused(SHIPYARD_LOG_ID=f"{ENCODED}=")


def test_wrong_inputs_end_the_run_before_it_sends_or_stores_anything(script, fivetran):
    command = [*script.command, "--timeout=0"]
    process = execute(command, cwd=script.folder, env=script.environment)
    assert (process.returncode, process.stdout) == (2, "")
    assert not fivetran.tunnels and not list(script.folder.iterdir())


@pytest.mark.parametrize("pair", [("ключ-ключ", 'quo"te\\€-секрет'), ("k", "s")])
def test_any_key_and_secret_work_in_any_locale(script, fivetran, pair):
    fivetran.credentials = pair
    assert script.run(**dict(zip(INPUTS, pair)), LC_ALL="C").code == 0
    assert script.run("--api-key", pair[0], f"--api-secret={pair[1]}").code == 0


def test_requests_that_cannot_be_imported_is_told():
    bare = [sys.executable, "-S", SCRIPT]  # without the packages that are installed
    process = execute(bare, env=INPUTS)
    assert (process.returncode, process.stdout) == (1, "")
    told = f"{sys.executable} cannot import requests: No module named 'requests'. "
    advice = "Use .venv/bin/python, set up as in the README.\n"
    assert process.stderr == f"The sync was not started. {told}{advice}"
