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
    "FIVETRAN_API_KEY": API_KEY,
    "FIVETRAN_API_SECRET": API_SECRET,
    "FIVETRAN_CONNECTOR_ID": CONNECTOR_ID,
}
NONE_SET = dict.fromkeys(FLAGS)


def test_flags_alone_do(run: Runner) -> None:
    words = [word for name, flag in FLAGS.items() for word in (flag, GOOD[name])]
    assert run(*words, **NONE_SET).code == 0
    words = [f"{flag}={GOOD[name]}" for name, flag in FLAGS.items()]
    assert run(*words, **NONE_SET).code == 0


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_beats_the_environment_unless_it_is_blank(
    run: Runner, name: str
) -> None:
    flag = FLAGS[name]
    assert run(flag, GOOD[name], **{name: "something_else"}).code == 0
    refused = 204 if flag == "--connector-id" else 200
    assert run(flag, "something_else").code == refused
    assert run(flag, " ").code == 0


def test_white_space_around_a_value_is_dropped(run: Runner) -> None:
    spaced = {name: f" \t{value}\r\n" for name, value in GOOD.items()}
    assert run(**spaced).code == 0
    words = [f"{FLAGS[name]}={value}" for name, value in spaced.items()]
    assert run(*words, **NONE_SET).code == 0


@pytest.mark.parametrize("value", [None, " \r\n"])
def test_all_that_is_missing_is_named_at_once(run: Runner, value: str | None) -> None:
    line = run.refused(run(**dict.fromkeys(FLAGS, value)), 2)
    for name, flag in FLAGS.items():
        assert f"{flag} or {name}" in line
        one = run.refused(run(**{name: value}), 2)
        assert [other for other in FLAGS if other in one] == [name]


@pytest.mark.parametrize(
    "value",
    ["../../../etc/passwd", "a\nb", "\u0661\uff41", "a" * 101],
    ids=["path", "line end", "not ASCII", "too long"],
)
def test_a_hostile_id_goes_nowhere_and_is_shown(run: Runner, value: str) -> None:
    shown = value.replace("\n", r"\n")
    assert shown in run.refused(run(FIVETRAN_CONNECTOR_ID=value), 2)
    line = run.refused(run(SHIPYARD_LOG_ID=value), 2)
    assert shown in line
    assert "SHIPYARD_LOG_ID" in line


@pytest.mark.parametrize("good", ["-A-9_z", "a" * 100])
def test_every_id_in_the_allowed_form_works(
    run: Runner, fivetran: FakeFivetran, good: str
) -> None:
    fivetran.connections[good] = Connection(good)
    result = run(f"--connector-id={good}", SHIPYARD_LOG_ID=good)
    assert result.code == 0
    assert result.response_path.name == f"sync_{good}_response.json"
    assert result.record_path.name == f"{good}_force_sync.pickle"


@pytest.mark.parametrize("value", ["0", "nan", "1e300", "ten"])
def test_a_timeout_that_is_no_positive_number_is_refused_and_shown(
    run: Runner, value: str
) -> None:
    line = run.refused(run(f"--timeout={value}"), 2)
    assert "--timeout" in line
    assert value in line


@pytest.mark.parametrize("value", [" 30.5 ", "9000000000"])
def test_every_positive_number_is_a_timeout(run: Runner, value: str) -> None:
    assert run(f"--timeout={value}").code == 0


# A secret that the script knows is hidden; these words hold one that it does not know.
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--connector", "unknown-value"], "--connector"),
        (["--api-secre=unknown-value"], "--api-secre"),
        (["--api_secret", "unknown-value"], "--api_secret"),
        (["--api-secretunknown-value"], "--api-secret"),
        (["unknown-value"], ""),
        (["--", "unknown-value"], ""),
        (["-s", "unknown-value"], ""),
        (["--help=unknown-value"], "--help"),
        (["--version='unknown-value"], "--version"),
        (["--api-secret unknown-value"], "--api-secret"),
        (["--api-secret"], "--api-secret"),
    ],
)
def test_a_word_in_the_wrong_place_is_not_shown_but_its_flag_is(
    run: Runner, words: list[str], named: str
) -> None:
    line = run.refused(run(*words), 2)
    assert "unknown-value" not in line
    assert named in line


def test_a_secret_in_the_place_of_another_input_is_not_shown(run: Runner) -> None:
    run.refused(run(f"--connector-id={API_SECRET}"), 2)
    run.refused(run(f"--connector-id={API_SECRET}/"), 2)
    run.refused(run(f"--timeout={API_SECRET}"), 2)


def test_help_is_complete(run: Runner) -> None:
    process = execute([*run.command, "--help"], env=run.environment)
    assert (process.returncode, process.stderr) == (0, "")
    short = execute([*run.command, "-h"], env=run.environment)
    assert short.stdout == process.stdout
    examples = process.stdout.index("* * * *")
    options = process.stdout.index("\noption")
    assert examples < options < process.stdout.index("artifacts, in")
    for part in (
        *FLAGS,
        *FLAGS.values(),
        "--timeout",
        "--version",
        "SHIPYARD_LOG_ID",
        "SHIPYARD_ARTIFACTS_DIRECTORY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "force_sync.pickle",
        "sync_{connector_id}_response.json",
    ):
        assert part in process.stdout, part


def test_help_lists_the_exit_codes(run: Runner) -> None:
    out = execute([*run.command, "--help"], env=run.environment).stdout
    rows = out.partition("exit codes:\n")[2].splitlines()
    assert {int(row.split()[0]) for row in rows} == EXIT_CODES


def test_version(run: Runner) -> None:
    process = execute([*run.command, "--version"], env=run.environment)
    assert process.stdout == "fivetran-execute-sync/1.0.0\n"
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("sink", ["| head -0", "> /dev/full", ">&-"])
def test_help_needs_no_reader(run: Runner, sink: str) -> None:
    script = f'"$@" {sink}; exit ${{PIPESTATUS[0]}}'
    for unbuffered in ("", "1"):
        process = execute(
            ["bash", "-c", script, "bash", *run.command, "--help"],
            env={**run.environment, "PYTHONUNBUFFERED": unbuffered},
        )
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
    assert line.partition("Type: ")[2].split(" && ") == [
        "python3 -m venv .venv",
        ".venv/bin/pip install -q 'requests>=2.32.4,<3'",
        f".venv/bin/python {SCRIPT}",
    ]
    assert execute([*run.command, "--help"]).returncode == 0


@pytest.mark.parametrize("module", ["urllib3", "certifi"])
def test_what_requests_needs_and_does_not_find_is_named(
    run: Runner, tmp_path: Path, module: str
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ImportError('no {module} here')")
    line = run.refused(run(PYTHONPATH=str(tmp_path)), 2)
    assert f"no {module} here" in line


def test_runs_from_any_folder_by_any_path(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(SCRIPT)
    run.command = [sys.executable, "../link"]
    assert run().code == 0


@pytest.mark.parametrize(
    ("key", "secret"), [("ключ-ключ", 'quo"te\\€-секрет'), ("k", "s")]
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
