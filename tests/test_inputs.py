"""Inputs: where they come from, and what happens when they make no sense."""

from __future__ import annotations

import re
import sys
import venv
from typing import TYPE_CHECKING

import pytest
from conftest import (
    API_KEY,
    API_SECRET,
    CONNECTOR_ID,
    EXIT_CODES,
    INPUTS,
    SCRIPT,
    Runner,
    execute,
)

import fivetran_execute_sync as script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fake_fivetran import FakeFivetran

    from fivetran_execute_sync import Inputs

FLAGS = {
    "--api-key": "FIVETRAN_API_KEY",
    "--api-secret": "FIVETRAN_API_SECRET",
    "--connector-id": "FIVETRAN_CONNECTOR_ID",
}


def given(inputs: Inputs) -> dict[str, str]:
    return dict(zip(INPUTS, inputs))


def refused(
    capsys: pytest.CaptureFixture[str], *arguments: str, **variables: str
) -> str:
    """Return the last line of what is said of wrong inputs, in argparse's form."""
    with pytest.raises(SystemExit) as ended:
        script.read_inputs(list(arguments), {**INPUTS, **variables})
    assert ended.value.code == 2
    *usage, line = capsys.readouterr().err.splitlines()
    assert usage[0].startswith("usage: ")
    return str(line)


def test_each_comes_from_the_environment_or_an_argument() -> None:
    assert given(script.read_inputs([], INPUTS)) == INPUTS
    words = [word for flag in FLAGS for word in (flag, INPUTS[FLAGS[flag]])]
    assert given(script.read_inputs(words, {})) == INPUTS


def test_an_argument_overrides_its_variable_unless_it_is_blank() -> None:
    for flag, name in FLAGS.items():
        assert given(script.read_inputs([f"{flag}=other"], INPUTS))[name] == "other"
        assert given(script.read_inputs([f"{flag}= "], INPUTS)) == INPUTS


def test_white_space_around_a_value_is_dropped() -> None:
    spaced = {name: f" \t{value}\r\n" for name, value in INPUTS.items()}
    words = [f"{flag}={spaced[name]}" for flag, name in FLAGS.items()]
    for inputs in (script.read_inputs([], spaced), script.read_inputs(words, {})):
        assert given(inputs) == INPUTS


def test_all_that_is_missing_is_named_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(capsys, **dict.fromkeys(INPUTS, " \r\n"))
    for flag, name in FLAGS.items():
        assert f"{flag} or {name}" in line
        one = refused(capsys, **{name: ""})
        assert [other for other in INPUTS if other in one] == [name]


@pytest.mark.parametrize("value", ["../../etc/passwd", "a b", "a\nb", "\u0661\uff41"])
def test_an_id_that_cannot_be_one_is_repeated(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    rule = ": use letters, digits, _ and -"
    line = refused(capsys, FIVETRAN_CONNECTOR_ID=value)
    assert line.endswith(f"error: invalid connector ID {value!r}{rule}")
    line = refused(capsys, SHIPYARD_LOG_ID=value)
    assert line.endswith(f"error: invalid SHIPYARD_LOG_ID {value!r}{rule}")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e300", "ten", ""])
def test_a_timeout_that_cannot_be_one_is_repeated(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    line = refused(capsys, f"--timeout={value}")
    assert "argument --timeout: " in line
    assert value in line


def test_the_timeout_is_in_seconds() -> None:
    assert script.read_inputs([], INPUTS).timeout == 120
    assert script.read_inputs(["--timeout", " 30.5 "], INPUTS).timeout == 30.5


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
def test_what_may_be_a_secret_is_not_repeated(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    line = refused(capsys, *words)
    for secret in ("unknown-value", API_KEY, API_SECRET):
        assert secret not in line


def test_artifacts_lie_where_shipyard_wants_them() -> None:
    def paths(**variables: str) -> tuple[str, str]:
        inputs = script.read_inputs([], {**INPUTS, **variables})
        return str(inputs.response), str(inputs.record)

    response = f"fivetran-blueprints/responses/sync_{CONNECTOR_ID}_response.json"
    variables = "fivetran-blueprints/variables"
    assert paths() == paths(SHIPYARD_ARTIFACTS_DIRECTORY=" ", SHIPYARD_LOG_ID=" ")
    assert paths() == (
        f"shipyard-artifacts/{response}",
        f"shipyard-artifacts/{variables}/force_sync.pickle",
    )
    assert paths(SHIPYARD_ARTIFACTS_DIRECTORY="/a b/ä", SHIPYARD_LOG_ID="3f-8A_0") == (
        f"/a b/ä/{response}",
        f"/a b/ä/{variables}/3f-8A_0_force_sync.pickle",
    )


# As a process ----------------------------------------------------------------------------


def test_wrong_inputs_end_the_run_before_it_sends_or_keeps_anything(
    run: Runner, fivetran: FakeFivetran
) -> None:
    process = execute([*run.command, "--timeout=0"], env=run.environment)
    assert (process.returncode, process.stdout) == (2, "")
    assert "argument --timeout" in process.stderr
    assert not fivetran.tunnels
    assert not list(run.folder.rglob("*"))


@pytest.mark.parametrize(
    ("key", "secret"), [("ключ-ключ", 'quo"te\\€-секрет'), ("k", "s")]
)
def test_any_key_and_secret_work_in_any_locale(
    run: Runner, fivetran: FakeFivetran, key: str, secret: str
) -> None:
    fivetran.credentials = (key, secret)
    run(FIVETRAN_API_KEY=key, FIVETRAN_API_SECRET=secret, LC_ALL="C")
    assert run("--api-key", key, f"--api-secret={secret}").code == 0


def test_netrc_does_not_replace_the_key(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    assert run(NETRC=str(tmp_path / "netrc")).code == 0


@pytest.fixture
def help_text() -> str:
    process = execute([sys.executable, SCRIPT, "--help"])
    assert (process.returncode, process.stderr) == (0, "")
    return str(process.stdout)


def test_help_shows_examples_options_artifacts_and_exit_codes(help_text: str) -> None:
    parts = ("in a shell", "in cron", "\noption", "artifacts, ", "exit codes:")
    places = [help_text.index(part) for part in parts]
    assert places == sorted(places)
    rows = help_text.partition("exit codes:\n")[2].splitlines()
    assert {int(row.split()[0]) for row in rows} == EXIT_CODES


def test_help_has_words_for_every_flag_and_names_every_variable(help_text: str) -> None:
    options = help_text.partition("\noption")[2].partition("\n\n")[0]
    flags = re.findall(r"^  (?:-h, )?(--[a-z-]+)", options, re.MULTILINE)
    words = re.findall(r"^  .*?--[a-z-]+(?: [A-Z_]+)?\s{2,}\w", options, re.MULTILINE)
    assert {"--help", "--version", "--timeout", *FLAGS} == set(flags)
    assert len(words) == len(flags), "a flag without a word of explanation"
    for name in set(re.findall(r'"([A-Z]+_[A-Z_]+)"', SCRIPT.read_text())):
        assert name in help_text


def test_version() -> None:
    process = execute([sys.executable, SCRIPT, "--version"])
    assert process.stdout == "fivetran-execute-sync/1.0.0\n"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: None, "No module named 'requests'"),
        # What pip leaves under umask 077 looks to others like an empty package.
        (
            lambda folder: (folder / "requests").mkdir(),
            "No module named 'requests.auth'",
        ),
        (
            lambda folder: (folder / "requests.py").write_text("raise OSError('torn')"),
            "torn",
        ),
    ],
    ids=["missing", "unreadable folder", "unreadable file"],
)
def test_requests_that_cannot_be_imported_are_told_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    venv.create(tmp_path, symlinks=True)
    spoil(tmp_path)
    python = tmp_path / "bin" / "python"
    process = execute([python, SCRIPT], env={**INPUTS, "PYTHONPATH": str(tmp_path)})
    assert (process.returncode, process.stdout) == (1, "")
    install = f"Try: {python} -m pip install requests"
    assert process.stderr == f"requests cannot be imported: {said}. {install}\n"
