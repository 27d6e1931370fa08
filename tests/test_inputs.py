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
    EXIT_CODES,
    SCRIPT,
    Runner,
    execute,
)
from fake_fivetran import Connection, FakeFivetran

FLAGS = {
    "FIVETRAN_API_KEY": "--api-key",
    "FIVETRAN_API_SECRET": "--api-secret",
    "FIVETRAN_CONNECTOR_ID": "--connector-id",
}
GOOD = {
    "--api-key": API_KEY,
    "--api-secret": API_SECRET,
    "--connector-id": CONNECTOR_ID,
}


def test_flags_alone_do(run: Runner) -> None:
    words = [word for pair in GOOD.items() for word in pair]
    assert run(*words, **dict.fromkeys(FLAGS)).code == 0
    words = [f"{flag}={value}" for flag, value in GOOD.items()]
    assert run(*words, **dict.fromkeys(FLAGS)).code == 0


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_beats_the_environment_unless_it_is_blank(
    run: Runner, name: str
) -> None:
    flag = FLAGS[name]
    assert run(flag, GOOD[flag], **{name: "something_else"}).code == 0
    assert run(flag, "something_else").code in (200, 204)
    assert run(flag, " ").code == 0


@pytest.mark.parametrize("name", FLAGS)
def test_white_space_around_a_value_is_dropped(run: Runner, name: str) -> None:
    value = f" \t{GOOD[FLAGS[name]]}\r\n"
    assert run(**{name: value}).code == 0
    assert run(f"{FLAGS[name]}={value}", **{name: None}).code == 0


@pytest.mark.parametrize("value", [None, "", " \r\n"])
def test_all_that_is_missing_is_named_at_once(run: Runner, value: str | None) -> None:
    line = run.refused(run(**dict.fromkeys(FLAGS, value)), 2)
    for name, flag in FLAGS.items():
        assert f"{flag} or {name}" in line
        one = run.refused(run(**{name: value}), 2)
        assert [other for other in FLAGS if other in one] == [name]


HOSTILE = {
    "path": "../../../etc/passwd",
    "query": "a?b",
    "encoded": "a%2Fb",
    "line end": "a\nb",
    "not ASCII": "\u0661\uff41",
    "too long": "a" * 101,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_id_goes_nowhere_and_is_shown(run: Runner, name: str) -> None:
    shown = HOSTILE[name][:50].replace("\n", r"\n")
    assert shown in run.refused(run(FIVETRAN_CONNECTOR_ID=HOSTILE[name]), 2)
    assert shown in run.refused(run("--connector-id", HOSTILE[name]), 2)
    line = run.refused(run(SHIPYARD_LOG_ID=HOSTILE[name]), 2)
    assert shown in line
    assert "SHIPYARD_LOG_ID" in line


@pytest.mark.parametrize("good", ["_", "-A-9_z", "a" * 100])
def test_every_id_in_the_allowed_form_works(
    run: Runner, fivetran: FakeFivetran, good: str
) -> None:
    fivetran.connections[good] = Connection(good)
    result = run(f"--connector-id={good}", SHIPYARD_LOG_ID=good)
    assert result.code == 0
    assert result.response_path.name == f"sync_{good}_response.json"
    assert result.record_path.name == f"{good}_force_sync.pickle"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "1e300", "ten", ""])
def test_a_timeout_that_is_no_positive_number_is_refused_and_shown(
    run: Runner, value: str
) -> None:
    line = run.refused(run(f"--timeout={value}"), 2)
    assert "--timeout" in line
    assert value in line


@pytest.mark.parametrize("value", [" 30.5 ", "1e2", "9000000000"])
def test_every_positive_number_is_a_timeout(run: Runner, value: str) -> None:
    assert run(f"--timeout={value}").code == 0


@pytest.mark.parametrize(
    "flag", ["--connector", "--api-secre", "--hel", "--api_secret"]
)
def test_no_flag_is_abbreviated_and_no_value_of_an_unknown_one_shown(
    run: Runner, flag: str
) -> None:
    # A secret that the script knows is hidden; this one it does not know.
    for words in ([flag, "unknown-value"], [f"{flag}=unknown-value"]):
        line = run.refused(run(*words), 2)
        assert flag in line
        assert "unknown-value" not in line


@pytest.mark.parametrize(
    "words",
    [
        ["unknown-value"],
        ["--", "unknown-value"],
        ["-s", "unknown-value"],
        ["--help=unknown-value"],
        ["--version='unknown-value"],
        ["--api-secret unknown-value"],
        ["--api-secret:unknown-value"],
        ["--api-secret"],
    ],
    ids=" ".join,
)
def test_a_value_in_the_wrong_place_is_not_shown(run: Runner, words: list[str]) -> None:
    assert "unknown-value" not in run.refused(run(*words), 2)


def test_a_secret_in_the_place_of_another_input_is_not_shown(run: Runner) -> None:
    run.refused(run(f"--connector-id={API_SECRET}/"), 2)
    run.refused(run(f"--timeout={API_SECRET}"), 2)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_complete(run: Runner, flag: str) -> None:
    process = run.start(flag)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    for part in (
        *(part for pair in FLAGS.items() for part in pair),
        "--timeout",
        "--version",
        "SHIPYARD_LOG_ID",
        "SHIPYARD_ARTIFACTS_DIRECTORY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "force_sync.pickle",
        "sync_{connector_id}_response.json",
        "* * * *",
    ):
        assert part in out, part
    options = out.index("options:") if "options:" in out else out.index("optional")
    assert out.index("* * * *") < options < out.index("artifacts, in")


def test_version(run: Runner) -> None:
    process = run.start("--version")
    assert process.communicate() == ("fivetran-execute-sync/1.0.0\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("flag", ["--help", "--version"])
@pytest.mark.parametrize("sink", ["| head -0", "> /dev/full", ">&-"])
def test_help_and_version_need_no_reader(run: Runner, flag: str, sink: str) -> None:
    script = f'"$@" {sink}; exit ${{PIPESTATUS[0]}}'
    for unbuffered in ("", "1"):
        environment = {"PYTHONUNBUFFERED": unbuffered}
        command = ["bash", "-c", script, "bash", *run.command, flag]
        process = execute(command, env=environment)
        assert process.returncode == 0
        assert "mistake" not in process.stderr


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has no requests."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def test_without_requests_one_command_sets_it_up(
    run: Runner, bare_python: Path
) -> None:
    run.command = [str(bare_python), str(SCRIPT)]
    line = run.refused(run(), 2)
    assert "'requests'" in line
    *steps, last = line.partition("Type: ")[2].split(" && ")
    assert steps == [
        "python3 -m venv .venv",
        ".venv/bin/pip install -q 'requests>=2.32.4,<3'",
    ]
    assert last == f".venv/bin/python {SCRIPT}"
    assert execute([*run.command, "--help"]).returncode == 0


@pytest.mark.parametrize("module", ["idna", "urllib3", "certifi"])
def test_what_requests_needs_and_does_not_find_is_named(
    run: Runner, tmp_path: Path, module: str
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ImportError('no {module} here')")
    line = run.refused(run(PYTHONPATH=str(tmp_path)), 2)
    assert f"no {module} here" in line
    assert "not installed" not in line


def test_runs_from_any_folder_by_any_path(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(SCRIPT)
    run.command = [sys.executable, "../link"]
    assert run().code == 0


@pytest.mark.parametrize(
    ("key", "secret"),
    [("ключ-ключ", "секрет-секрет"), ("käse", 'quo"te\\€'), ("k", "s")],
)
def test_any_key_and_secret_work_in_any_locale(
    run: Runner, fivetran: FakeFivetran, key: str, secret: str
) -> None:
    fivetran.credentials = (key, secret)
    result = run(FIVETRAN_API_KEY=key, FIVETRAN_API_SECRET=secret, LC_ALL="C")
    assert result.code == 0
    assert "Success: Sync has been successfully triggered" in result.out
    assert run("--api-key", key, f"--api-secret={secret}").code == 0


def test_netrc_does_not_replace_the_key(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    assert run(NETRC=str(tmp_path / "netrc")).code == 0


def test_help_lists_the_exit_codes(run: Runner) -> None:
    out, _ = run.start("--help").communicate()
    rows = out.partition("exit codes:\n")[2].splitlines()
    assert {int(row.split()[0]) for row in rows} == EXIT_CODES
