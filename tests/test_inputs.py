"""Inputs: where they come from, and what happens when they make no sense."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest
from conftest import (
    API_KEY,
    API_SECRET,
    CONNECTOR_ID,
    LINE,
    SCRIPT,
    Run,
    Runner,
    execute,
)
from fake_fivetran import FakeFivetran

NAMES = {
    "FIVETRAN_API_KEY": "--api-key",
    "FIVETRAN_API_SECRET": "--api-secret",
    "FIVETRAN_CONNECTOR_ID": "--connector-id",
}
GOOD = {
    "--api-key": API_KEY,
    "--api-secret": API_SECRET,
    "--connector-id": CONNECTOR_ID,
}


def refused(result: Run, fivetran: FakeFivetran) -> str:
    """Check that nothing was sent or written; return the one line that says why."""
    assert result.code == 2
    assert result.out == ""
    assert fivetran.tunnels == []
    assert result.kept_nothing
    (line,) = result.err.splitlines()
    assert "Nothing was sent: " in line
    assert "--help" in line
    return line


def test_flags_alone_do(run: Runner) -> None:
    flags = [word for pair in GOOD.items() for word in pair]
    assert run(*flags, **dict.fromkeys(NAMES)).code == 0


def test_flags_may_be_joined_to_their_values(run: Runner) -> None:
    flags = [f"{flag}={value}" for flag, value in GOOD.items()]
    assert run(*flags, **dict.fromkeys(NAMES)).code == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_flag_beats_the_environment(run: Runner, name: str) -> None:
    flag = NAMES[name]
    assert run(flag, GOOD[flag], **{name: "something_else"}).code == 0
    assert run(flag, "something_else").code in (200, 204)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("blank", ["", " ", "\t\n "])
def test_a_blank_flag_counts_as_not_given(run: Runner, name: str, blank: str) -> None:
    assert run(f"{NAMES[name]}={blank}").code == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [" {}", "{}\n", "\r\n{}\r\n", "\t {} \u00a0"])
def test_white_space_around_a_value_is_dropped(
    run: Runner, name: str, form: str
) -> None:
    value = form.format(GOOD[NAMES[name]])
    assert run(**{name: value}).code == 0
    assert run(f"{NAMES[name]}={value}", **{name: None}).code == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_missing_input_is_named(
    run: Runner, fivetran: FakeFivetran, name: str, value: str | None
) -> None:
    line = refused(run(**{name: value}), fivetran)
    for other, flag in NAMES.items():
        assert (f"{flag} or {other}" in line) == (other == name)


def test_all_that_is_missing_is_named_in_one_message(
    run: Runner, fivetran: FakeFivetran
) -> None:
    line = refused(run(**dict.fromkeys(NAMES)), fivetran)
    assert all(f"{flag} or {name}" in line for name, flag in NAMES.items())


HOSTILE_IDS = [
    "../../../etc/passwd",
    "..",
    ".",
    "a/b",
    "/",
    "a\\b",
    "a?b",
    "a#b",
    "a%2Fb",
    "%2e%2e",
    "a b",
    "a\nb",
    "a\x1b[31mb",
    "a;b",
    "a:b@c",
    "коннектор",
    "connector\u0661",
    "ａｂｃ",
    "é",
    "a" * 101,
    "a" * 50_000,
    "{}",
    "a'b",
]


@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_a_hostile_connector_id_goes_nowhere(
    run: Runner, fivetran: FakeFivetran, hostile: str
) -> None:
    line = refused(run(FIVETRAN_CONNECTOR_ID=hostile), fivetran)
    assert "connector" in line.lower()
    assert hostile not in line or hostile in "."
    refused(run("--connector-id", hostile), fivetran)


@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_a_hostile_log_id_goes_nowhere(
    run: Runner, fivetran: FakeFivetran, hostile: str
) -> None:
    assert "SHIPYARD_LOG_ID" in refused(run(SHIPYARD_LOG_ID=hostile), fivetran)


@pytest.mark.parametrize("good", ["a", "_", "-", "A-9_z", "a" * 100, "_a"])
def test_every_id_in_the_allowed_form_works(
    run: Runner, fivetran: FakeFivetran, good: str
) -> None:
    fivetran.connections[good] = fivetran.connections.pop(CONNECTOR_ID)
    result = run(f"--connector-id={good}", SHIPYARD_LOG_ID=good)
    assert result.code == 0
    assert result.response_path.name == f"sync_{good}_response.json"
    assert result.record_path.name == f"{good}_force_sync.pickle"


@pytest.mark.parametrize(
    "value", ["0", "-1", "nan", "inf", "1e400", "1e300", "ten", "1,5", "0.0"]
)
def test_a_timeout_that_is_no_positive_number_is_refused(
    run: Runner, fivetran: FakeFivetran, value: str
) -> None:
    assert "--timeout" in refused(run(f"--timeout={value}"), fivetran)


@pytest.mark.parametrize("value", ["30", " 30.5 ", "1e2", "", " ", "9000000000"])
def test_every_positive_number_is_a_timeout(run: Runner, value: str) -> None:
    assert run(f"--timeout={value}").code == 0


def test_a_timeout_without_a_value_is_refused(
    run: Runner, fivetran: FakeFivetran
) -> None:
    assert "--timeout" in refused(run("--timeout"), fivetran)


@pytest.mark.parametrize(
    "typo", ["--api-secrt", "--api_secret", "--secret", "--api", "-s"]
)
def test_a_typo_in_a_flag_is_named_and_its_value_is_not_shown(
    run: Runner, fivetran: FakeFivetran, typo: str
) -> None:
    for words in ([typo, API_SECRET], [f"{typo}={API_SECRET}"]):
        line = refused(run(*words), fivetran)
        assert typo in line or not typo.startswith("--")


def test_a_secret_in_the_wrong_place_is_not_shown(
    run: Runner, fivetran: FakeFivetran
) -> None:
    for words in (
        [API_SECRET],
        ["--", API_SECRET],
        [f"--timeout={API_SECRET}"],
        [f"--connector-id={API_SECRET}/+="],
        [f"--help={API_SECRET}"],
        [f"--version={API_SECRET}"],
    ):
        refused(run(*words), fivetran)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_complete(run: Runner, flag: str) -> None:
    process = run.start(flag)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    for part in (
        *(part for pair in NAMES.items() for part in pair),
        "--timeout",
        "--version",
        "SHIPYARD_LOG_ID",
        "HTTPS_PROXY",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "SHIPYARD_ARTIFACTS_DIRECTORY",
        "force_sync.pickle",
        "sync_{connector_id}_response.json",
        "In a shell",
        "In cron",
        "* * * *",
        *("200", "201", "203", "204", "249", "130"),
    ):
        assert part in out, part
    assert max(map(len, out.splitlines())) < 90


def test_version(run: Runner) -> None:
    process = run.start("--version")
    assert process.communicate() == ("fivetran-execute-sync/1.0.0\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_need_no_inputs_and_no_reader(run: Runner, flag: str) -> None:
    command = (
        f"{run.command[0]} {run.command[1]} {flag} | head -0; echo ${{PIPESTATUS[0]}}"
    )
    process = execute(["bash", "-c", command])
    assert (process.stdout, process.stderr) == ("0\n", "")


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has no requests."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def test_without_requests_one_line_says_what_to_type(
    run: Runner, fivetran: FakeFivetran, bare_python: Path
) -> None:
    process = execute([bare_python, SCRIPT], cwd=run.folder, env=run.environment)
    result = Run(
        process.returncode, process.stdout, process.stderr, run.folder, run.artifacts
    )
    line = refused(result, fivetran)
    assert LINE.fullmatch(line)
    what_to_type = "python3 -m venv .venv && .venv/bin/pip install requests"
    assert f"{what_to_type}; use .venv/bin/python" in line


@pytest.mark.parametrize("version", ["3.7", "3.8"])
def test_an_old_python_is_told_in_one_line(
    run: Runner, fivetran: FakeFivetran, version: str
) -> None:
    pythons = list(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not pythons:
        pytest.skip(f"no Python {version} here")
    process = execute([pythons[0], SCRIPT], cwd=run.folder, env=run.environment)
    result = Run(
        process.returncode, process.stdout, process.stderr, run.folder, run.artifacts
    )
    assert "Python 3.9" in refused(result, fivetran)


def test_runs_from_any_folder_by_any_path(run: Runner, tmp_path: Path) -> None:
    link = tmp_path / "bin.json"  # a name that no test takes for a leftover
    link.symlink_to(SCRIPT)
    command = [sys.executable, "bin.json"]
    process = execute(command, cwd=tmp_path, env=run.environment)
    assert process.returncode == 0


@pytest.mark.parametrize("words", [["--hel"], ["--vers"], ["-hh"], ["--h"], ["-v"]])
def test_half_a_flag_does_not_start_a_sync(
    run: Runner, fivetran: FakeFivetran, words: list[str]
) -> None:
    refused(run(*words), fivetran)


def test_requests_that_cannot_be_imported_are_told(
    run: Runner, fivetran: FakeFivetran, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    (folder / "requests.py").write_text("import no_such_module_at_all")
    line = refused(run(PYTHONPATH=str(folder)), fivetran)
    assert "pip install requests" in line


def test_warnings_of_libraries_are_not_printed(
    run: Runner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("warning")
    (folder / "chardet.py").write_text("__version__ = '99.0.0'")
    assert run(PYTHONPATH=str(folder)).err == ""
