"""Inputs: where they come from, and what happens when they make no sense."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
from harness import CONNECTOR_ID, ENCODED, INPUTS, SCRIPT, execute
from hypothesis import given
from hypothesis import strategies as st

from fivetran_execute_sync import argument_parser, read_inputs

FLAGS = dict(zip(("--api-key", "--api-secret", "--connector-id"), INPUTS))


def test_each_comes_from_the_environment_or_an_argument_without_white_space_around():
    inputs = read_inputs([], INPUTS)
    values = (inputs.auth.username, inputs.auth.password, inputs.connector_id.encode())
    assert values == tuple(value.encode() for value in INPUTS.values())
    spaced = {name: f" \t{value}\r\n" for name, value in INPUTS.items()}
    arguments = [f"{flag}={spaced[name]}" for flag, name in FLAGS.items()]
    assert read_inputs([], spaced) == read_inputs(arguments, {}) == inputs


def test_every_argument_overrides_the_variable_that_help_names_unless_it_is_blank():
    pattern = r"^  (--[a-z-]+) [A-Z_]+\s+default: ([A-Z_]+)$"
    parser = argument_parser()
    defaults = dict(re.findall(pattern, parser.format_help(), re.MULTILINE))
    flags = set(re.findall(r"--[a-z-]+", parser.format_usage()))
    assert flags - {"--help", "--version", "--timeout"} == set(defaults) >= set(FLAGS)
    usual = read_inputs([], INPUTS)
    for flag, variable in defaults.items():
        other = read_inputs([], {**INPUTS, variable: "other"})
        assert other != usual
        assert read_inputs([f"{flag}=other"], INPUTS) == other
        assert read_inputs([f"{flag}= "], INPUTS) == usual


@pytest.fixture
def refused(capsys):
    """Return the last line of what is said of wrong inputs, in argparse's form."""

    def refused(*arguments, **variables):
        with pytest.raises(SystemExit) as ended:
            read_inputs(arguments, {**INPUTS, **variables})
        assert ended.value.code == 2
        *usage, line = capsys.readouterr().err.splitlines()
        assert usage[0].startswith("usage: ")
        return line.partition(" error: ")[2]

    return refused


def test_all_that_is_missing_is_named_at_once(refused):
    all_of_them = ", ".join(f"{flag} or {name}" for flag, name in FLAGS.items())
    assert refused(**dict.fromkeys(INPUTS, " \r\n")) == f"missing {all_of_them}"
    for flag, name in FLAGS.items():
        assert refused(**{name: ""}) == f"missing {flag} or {name}"


def test_an_id_that_cannot_be_one_is_repeated(refused):
    for value in ("../../etc/passwd", "a\nb", "\u0661\uff41"):
        told = f"{value!r}: use letters, digits, _ and -"
        assert refused(FIVETRAN_CONNECTOR_ID=value) == f"invalid connector ID {told}"
        assert refused(SHIPYARD_LOG_ID=value) == f"invalid SHIPYARD_LOG_ID {told}"


def test_the_timeout_is_a_finite_number_of_seconds_above_0(refused):
    told = "argument --timeout: not a usable number of seconds"
    for value in ("0", "nan", "1e300", "ten"):
        assert refused(f"--timeout={value}") == told
    assert read_inputs([], INPUTS).timeout == 120
    assert read_inputs(["--timeout", " 30.5 "], INPUTS).timeout == 30.5


def test_what_may_be_a_secret_is_not_repeated(refused):
    for words in (
        ["--connector", "unknown-value"],
        ["--api-secret unknown-value"],
        ["--", "unknown-value"],
        ["--timeout", "unknown-value"],
        ["--api-key=unknown-value", "--connector-id=unknown-value"],
    ):
        assert "unknown-value" not in refused(*words)
    assert ENCODED not in refused(f"--connector-id={ENCODED}/")
    assert refused(SHIPYARD_LOG_ID=ENCODED).startswith("invalid SHIPYARD_LOG_ID '***'")


def test_artifacts_lie_where_shipyard_wants_them():
    for folder, log_id, prefix in (("/a b/ä", "3f-8A_0", "3f-8A_0_"), (" ", " ", "")):
        shipyard = {"SHIPYARD_ARTIFACTS_DIRECTORY": folder, "SHIPYARD_LOG_ID": log_id}
        inputs = read_inputs([], {**INPUTS, **shipyard})
        artifacts = Path(folder.strip() or "shipyard-artifacts", "fivetran-blueprints")
        response_file = artifacts / "responses" / f"sync_{CONNECTOR_ID}_response.json"
        assert inputs.response_file == response_file
        assert inputs.record_file == artifacts / f"variables/{prefix}force_sync.pickle"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
words = st.sampled_from(["--api-key", "--connector-id", "--timeout", "an_id"]) | texts
variables = st.sampled_from([*INPUTS, "SHIPYARD_LOG_ID"])
secrets = st.text("€ßΩ7", min_size=6)


@given(st.dictionaries(variables, words), st.lists(words, max_size=6), secrets)
def test_inputs_are_right_or_the_run_ends_with_exit_code_2(environment, words, secret):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            read_inputs(words, {**environment, "FIVETRAN_API_SECRET": secret})
    except SystemExit as ended:
        assert ended.code == 2
        assert said.getvalue().startswith("usage: ")
        assert secret not in said.getvalue()
    else:
        assert said.getvalue() == ""


def test_wrong_inputs_end_the_run_before_it_sends_or_stores_anything(script, fivetran):
    command = [*script.command, "--timeout=0"]
    process = execute(command, cwd=script.folder, env=script.environment)
    assert (process.returncode, process.stdout) == (2, "")
    assert "argument --timeout: " in process.stderr
    assert not fivetran.tunnels
    assert not list(script.folder.iterdir())


@pytest.mark.parametrize("pair", [("ключ-ключ", 'quo"te\\€-секрет'), ("k", "s")])
def test_any_key_and_secret_work_in_any_locale(script, fivetran, pair):
    fivetran.credentials = pair
    variables = dict(zip(INPUTS, pair))
    assert script.run(**variables, LC_ALL="C").code == 0
    assert script.run("--api-key", pair[0], f"--api-secret={pair[1]}").code == 0


# Where requests is looked for, what is there, and what is told.
TORN = [
    ("nothing", "", "No module named 'requests'"),
    # What pip leaves under umask 077 looks to others like an empty package.
    ("requests", None, "No module named 'requests.auth'"),
    ("requests.py", "raise AttributeError('torn')", "torn"),
]


@pytest.mark.parametrize(("name", "content", "told"), TORN)
def test_requests_that_cannot_be_imported_is_told(tmp_path, name, content, told):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_text(content)
    bare = [sys.executable, "-S", SCRIPT]  # without the packages that are installed
    process = execute(bare, env={**INPUTS, "PYTHONPATH": str(tmp_path)})
    assert (process.returncode, process.stdout) == (1, "")
    advice = " Use .venv/bin/python, set up as in the README." * ("torn" not in told)
    line = f"requests cannot be imported by {sys.executable}: {told}.{advice}\n"
    assert process.stderr == f"The sync was not started. {line}"
