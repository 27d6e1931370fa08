"""Inputs: where they come from, and what happens when they make no sense."""

import re
import sys
import venv
from pathlib import Path

import pytest
from conftest import (
    API_KEY,
    API_SECRET,
    CONNECTOR_ID,
    EXIT_CODES,
    INPUTS,
    SCRIPT,
    execute,
)

from fivetran_execute_sync import REFUSALS, read_inputs

FLAGS = {
    "--api-key": "FIVETRAN_API_KEY",
    "--api-secret": "FIVETRAN_API_SECRET",
    "--connector-id": "FIVETRAN_CONNECTOR_ID",
}


def given(arguments, environment):
    return dict(zip(INPUTS, read_inputs(arguments, environment)))


def test_each_comes_from_the_environment_or_an_argument():
    assert given([], INPUTS) == INPUTS
    words = [word for flag in FLAGS for word in (flag, INPUTS[FLAGS[flag]])]
    assert given(words, {}) == INPUTS


def test_an_argument_overrides_its_variable_unless_it_is_blank():
    for flag, name in FLAGS.items():
        assert given([f"{flag}=other"], INPUTS)[name] == "other"
        assert given([f"{flag}= "], INPUTS) == INPUTS


def test_white_space_around_a_value_is_dropped():
    spaced = {name: f" \t{value}\r\n" for name, value in INPUTS.items()}
    assert given([], spaced) == INPUTS
    assert (
        given([f"{flag}={spaced[name]}" for flag, name in FLAGS.items()], {}) == INPUTS
    )


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


@pytest.mark.parametrize("value", ["../../etc/passwd", "a b", "a\nb", "\u0661\uff41"])
def test_an_id_that_cannot_be_one_is_repeated(refused, value):
    told = f"{value!r}: use letters, digits, _ and -"
    assert refused(FIVETRAN_CONNECTOR_ID=value) == f"invalid connector ID {told}"
    assert refused(SHIPYARD_LOG_ID=value) == f"invalid SHIPYARD_LOG_ID {told}"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e300", "ten", ""])
def test_a_timeout_that_cannot_be_one_is_repeated(refused, value):
    told = refused(f"--timeout={value}")
    assert told.startswith("argument --timeout: ")
    assert value in told


def test_the_timeout_is_in_seconds():
    assert read_inputs([], INPUTS).timeout == 120
    assert read_inputs(["--timeout", " 30.5 "], INPUTS).timeout == 30.5


@pytest.mark.parametrize(
    "words",
    [
        ["--connector", "unknown-value"],
        ["--api-secre=unknown-value"],
        ["--api-secretunknown-value"],
        ["--api-secret unknown-value"],
        ["unknown-value"],
        ["--", "unknown-value"],
        ["-s", "unknown-value"],
        ["--api-secret"],
        [f"--connector-id={API_SECRET}"],
        [f"--connector-id={API_KEY}/"],
        ["--api-key=unknown-value", "--connector-id=unknown-value"],
    ],
)
def test_what_may_be_a_secret_is_not_repeated(refused, words):
    told = refused(*words)
    for secret in ("unknown-value", API_KEY, API_SECRET):
        assert secret not in told


def test_artifacts_lie_where_shipyard_wants_them():
    for folder, log_id, prefix in (("/a b/ä", "3f-8A_0", "3f-8A_0_"), (" ", " ", "")):
        shipyard = {"SHIPYARD_ARTIFACTS_DIRECTORY": folder, "SHIPYARD_LOG_ID": log_id}
        inputs = read_inputs([], {**INPUTS, **shipyard})
        artifacts = Path(folder.strip() or "shipyard-artifacts", "fivetran-blueprints")
        response = artifacts / "responses" / f"sync_{CONNECTOR_ID}_response.json"
        record = artifacts / "variables" / f"{prefix}force_sync.pickle"
        assert (inputs.response, inputs.record) == (response, record)


# As a process ----------------------------------------------------------------------------


def test_wrong_inputs_end_the_run_before_it_sends_or_stores_anything(run, fivetran):
    process = execute(
        [*run.command, "--timeout=0"], cwd=run.folder, env=run.environment
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert "argument --timeout: " in process.stderr
    assert not fivetran.tunnels
    assert not list(run.folder.iterdir())


@pytest.mark.parametrize(
    ("key", "secret"), [("ключ-ключ", 'quo"te\\€-секрет'), ("k", "s")]
)
def test_any_key_and_secret_work_in_any_locale(run, fivetran, key, secret):
    fivetran.credentials = (key, secret)
    run(FIVETRAN_API_KEY=key, FIVETRAN_API_SECRET=secret, LC_ALL="C")
    assert run("--api-key", key, f"--api-secret={secret}").code == 0


def test_netrc_does_not_replace_the_key(run, tmp_path):
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    assert run(NETRC=str(tmp_path / "netrc")).code == 0


@pytest.fixture
def help_text():
    process = execute([sys.executable, SCRIPT, "--help"])
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_help_shows_examples_options_artifacts_and_exit_codes(help_text):
    parts = ("in a shell", "in cron", "\noption", "artifacts, ", "exit codes:")
    places = [help_text.index(part) for part in parts]
    assert places == sorted(places)
    rows = help_text.partition("exit codes:\n")[2].splitlines()
    assert {int(row.split()[0]) for row in rows} == EXIT_CODES
    assert {code for code, _ in REFUSALS.values()} < EXIT_CODES


def test_help_has_words_for_every_flag_and_names_every_variable(help_text):
    options = help_text.partition("\noption")[2].partition("\n\n")[0]
    flags = re.findall(r"^  (?:-h, )?(--[a-z-]+)", options, re.MULTILINE)
    assert {"--help", "--version", "--timeout", *FLAGS} <= set(flags)
    words = re.findall(r"^  .*?--[a-z-]+(?: [A-Z_]+)?\s{2,}\w", options, re.MULTILINE)
    assert len(words) == len(flags), "a flag without a word of explanation"
    for name in set(re.findall(r'"([A-Z]+_[A-Z_]+)"', SCRIPT.read_text())):
        assert name in help_text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("nothing", "", "No module named 'requests'"),
        # What pip leaves under umask 077 looks to others like an empty package.
        ("requests", None, "No module named 'requests.auth'"),
        ("requests.py", "raise OSError('torn')", "torn"),
        ("requests.py", "raise AttributeError('torn')", "torn"),
    ],
)
def test_requests_that_cannot_be_imported_is_told_in_one_line(
    tmp_path, name, content, told
):
    venv.create(tmp_path, symlinks=True)
    path = tmp_path / name
    path.mkdir() if content is None else path.write_text(content)
    python = tmp_path / "bin" / "python"
    process = execute([python, SCRIPT], env={**INPUTS, "PYTHONPATH": str(tmp_path)})
    assert (process.returncode, process.stdout) == (1, "")
    install = f"Try: {python} -m pip install requests"
    assert process.stderr == f"requests cannot be imported: {told}. {install}\n"
