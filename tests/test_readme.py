"""Every command and every sample of output in the README is what really happens."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
from conftest import API_KEY, API_SECRET, CONNECTOR_ID, SCRIPT, Runner, execute
from fake_fivetran import Connection, FakeFivetran

ROOT = SCRIPT.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(language: str, part: str) -> str:
    """Return the only block of a language that has a part."""
    (found,) = (text for name, text in BLOCKS if name == language and part in text)
    return found


def normal(output: str) -> str:
    """Return output without what differs from run to run."""
    output = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "(time)", output)
    return re.sub(r"\b[0-9a-f]{32}\b", "(request ID)", output)


def without_set_up(command: str) -> str:
    """Return a command without the part that downloads: here the tests' own environment
    stands in the place of what it would make."""
    steps = command.strip().split(" && ")
    set_up = [
        step for step in steps if re.match(r"python3 -m venv|\.venv/bin/pip", step)
    ]
    assert len(set_up) == 2
    assert steps[:2] == set_up
    return " && ".join(steps[2:])


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the project with a virtual environment in it: that of the tests."""
    folder = tmp_path / "home" / "fivetran-execute-sync"
    shutil.copytree(
        ROOT, folder, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__")
    )
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -B "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.fixture
def connected(run: Runner) -> dict[str, str]:
    """An environment with nothing but the way to the local Fivetran and the secrets."""
    names = ("PATH", "HTTPS_PROXY", "REQUESTS_CA_BUNDLE")
    environment = {name: run.environment[name] for name in names}
    return {
        **environment,
        "FIVETRAN_API_KEY": API_KEY,
        "FIVETRAN_API_SECRET": API_SECRET,
    }


def test_no_block_goes_untested() -> None:
    languages = [language for language, _ in BLOCKS]
    assert sorted(languages) == sorted(
        ["console"] * 2 + ["sh"] * 7 + ["env", "crontab", "yaml", "json"]
    )


def test_try_it_runs_the_script_against_the_local_fivetran(clone: Path) -> None:
    command = block("sh", "tests/fake_fivetran.py")
    assert " -r requirements.txt trustme " in command
    process = execute(
        ["sh", "-c", without_set_up(command)],
        cwd=clone,
        env={"PATH": os.environ["PATH"]},
    )
    assert process.returncode == 0
    assert "> POST https://api.fivetran.com/v1/connections/" in process.stderr
    assert "Base64" not in process.stdout
    sample = block("console", "$ .venv/bin/python fivetran_execute_sync.py")
    assert normal(process.stdout) == normal(sample.partition("\n")[2])
    artifacts = clone / "shipyard-artifacts" / "fivetran-blueprints"
    response = artifacts / "responses" / f"sync_{CONNECTOR_ID}_response.json"
    assert response.read_text() == block("json", "Success")
    assert (artifacts / "variables" / "force_sync.pickle").is_file()


def test_run_it_does_what_try_it_does(clone: Path, connected: dict[str, str]) -> None:
    command = without_set_up(block("sh", "--connector-id speak_inexpensive\n"))
    process = execute(["sh", "-c", command], cwd=clone, env=connected)
    assert (process.returncode, process.stderr) == (0, "")
    assert "Success" in process.stdout


def test_inputs_can_be_read_without_showing_them(
    clone: Path, connected: dict[str, str], fivetran: FakeFivetran
) -> None:
    del connected["FIVETRAN_API_KEY"], connected["FIVETRAN_API_SECRET"]
    read = block("sh", "read -rs FIVETRAN_API_SECRET")
    command = without_set_up(block("sh", "--connector-id speak_inexpensive\n"))
    process = execute(
        ["bash", "-c", read + command],
        cwd=clone,
        env=connected,
        input=f"{API_KEY}\n{API_SECRET}\n",
    )
    assert process.returncode == 0
    assert API_SECRET not in process.stdout + process.stderr


def test_test_it_runs_these_tests_and_is_what_ci_runs(clone: Path) -> None:
    command = block("sh", "-m pytest")
    assert command.strip() in (ROOT / ".ci" / "run").read_text()
    arguments = without_set_up(command).replace(".venv/bin/python", sys.executable)
    process = execute(
        ["sh", "-c", f"{arguments} --collect-only -q -n 0 -k readme"], cwd=clone
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "test_readme.py" in process.stdout


def crontab_line(clone: Path, environment: dict[str, str], secret: str) -> list[str]:
    """Write the file with the secrets as the README says, and return the command that cron
    runs, in an environment as bare as cron's."""
    home = clone.parent
    cron = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    execute(["sh", "-c", block("sh", "touch")], env=cron)
    file = home / ".fivetran"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = block("env", "FIVETRAN_CONNECTOR_ID")
    lines = lines.replace("the plain API key", API_KEY).replace(
        "the API secret", secret
    )
    for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):
        lines += f"export {name}='{environment[name]}'\n"
    file.write_text(lines)
    line = block("crontab", "* * * *").strip()
    schedule, command = " ".join(line.split()[:5]), line.split(maxsplit=5)[5]
    assert re.fullmatch(r"\d+ \* \* \* \*", schedule)
    assert "%" not in command  # a line end to cron
    assignments = [f"{name}={value}" for name, value in cron.items()]
    return ["env", "-i", *assignments, "/bin/sh", "-c", command]


def test_cron_is_set_up_with_one_command(clone: Path) -> None:
    command = block("sh", "git clone").strip()
    clone_it, enter, *set_up = command.split(" && ")
    assert without_set_up(" && ".join([*set_up, "true"])) == "true"
    for git in ("init -q .", "add .", "-c user.name=x -c user.email=x@x commit -qm x"):
        assert execute(["git", *git.split()], cwd=clone).returncode == 0
    home = clone.parent / "another"
    home.mkdir()
    process = execute(
        ["sh", "-c", f"{clone_it} && {enter} && pwd && ls"],
        cwd=clone,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
    )
    assert process.stdout.startswith(f"{home}/fivetran-execute-sync\n")
    assert "fivetran_execute_sync.py" in process.stdout


def test_cron_says_nothing_when_all_is_well_and_logs_it(
    clone: Path, connected: dict[str, str]
) -> None:
    command = crontab_line(clone, connected, API_SECRET)
    for _ in range(2):
        process = execute(command)
        assert (process.stdout, process.stderr) == ("", "")
    log = (clone.parent / "fivetran.log").read_text()
    assert len(log.splitlines()) == 6
    assert log.count("Success") == 2


def test_cron_mails_what_failed_and_logs_it_too(
    clone: Path, connected: dict[str, str]
) -> None:
    process = execute(crontab_line(clone, connected, "something else"))
    (line,) = (process.stdout + process.stderr).splitlines()
    assert "HTTP 401" in line
    log = (clone.parent / "fivetran.log").read_text().splitlines()
    assert line in log
    assert len(log) == 3


@pytest.mark.parametrize("lost", [".fivetran", "fivetran-execute-sync"])
def test_cron_mails_when_something_it_needs_is_gone(
    clone: Path, connected: dict[str, str], lost: str
) -> None:
    command = crontab_line(clone, connected, API_SECRET)
    (clone.parent / lost).rename(clone.parent / "elsewhere")
    process = execute(command)
    assert lost in process.stdout
    assert lost in (clone.parent / "fivetran.log").read_text()


def test_guardrails_exclude_exactly_what_another_try_does_not_mend() -> None:
    yaml = block("yaml", "exclude_exit_code_ranges")
    excluded: set[int] = set()
    for first, last in re.findall(r'- "(\d+)-(\d+)"', yaml):
        excluded.update(range(int(first), int(last) + 1))
    assert excluded >= {1, 2, 200, 201, 203, 204}
    assert not excluded & {0, 130, 249}


def test_exit_codes_are_those_of_the_help(run: Runner) -> None:
    codes = set(re.findall(r"^\| (\d+) \| ", README, re.MULTILINE))
    out, _ = run.start("--help").communicate()
    listed = set(re.findall(r"\b(\d+) +[A-Z a-z]", out.partition("Exit codes:")[2]))
    assert codes - {"1", "10", "100"} | {"1"} == listed


def test_many_connectors_each_get_a_record(
    clone: Path, connected: dict[str, str], fivetran: FakeFivetran
) -> None:
    names = [f"connector_{number}" for number in range(20)]
    fivetran.connections = {name: Connection(name) for name in names}
    listed = [*names[:10], "no_such_connector", *names[10:]]
    (clone / "connectors.txt").write_text("".join(f"{name}\n" for name in listed))
    command = block("sh", "xargs")
    process = execute(["sh", "-c", command], cwd=clone, env=connected)
    assert process.returncode == 123
    assert len(process.stderr.splitlines()) == 1
    variables = clone / "shipyard-artifacts" / "fivetran-blueprints" / "variables"
    for name in names:
        record = pickle.loads((variables / f"{name}_force_sync.pickle").read_bytes())
        assert record[0] == name
        assert fivetran.connections[name].syncing


def test_the_benchmark_runs_the_same_line_for_many_connectors() -> None:
    from benchmark import MANY

    command = block("sh", "xargs").strip()
    ours = command.replace(".venv/bin/python fivetran_execute_sync.py", '"$0" "$1"')
    assert ours == MANY


def test_the_record_reads_back_in_one_line(
    clone: Path, connected: dict[str, str]
) -> None:
    sample = block("console", "pickle.load")
    command, output = sample.removeprefix("$ ").split("\n", 1)
    connected["FIVETRAN_CONNECTOR_ID"] = CONNECTOR_ID
    execute([clone / ".venv/bin/python", SCRIPT], cwd=clone, env=connected)
    process = execute(["sh", "-c", command], cwd=clone)

    def shape(text: str) -> str:
        return re.sub(r"\(20\d\d(, \d+){4,6}, tz", "(time, tz", text)

    assert shape(process.stdout) == shape(output)
    assert process.stdout.startswith(f"['{CONNECTOR_ID}', datetime.datetime(")


def test_inputs_are_those_of_the_script(run: Runner) -> None:
    out, _ = run.start("--help").communicate()
    table = README.partition("### Inputs")[2].partition("###")[0]
    for name in re.findall(r"`(--[a-z-]+|[A-Z_]{6,})`", table):
        assert name in out or name in ("HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")


def test_troubles_are_told_in_the_words_of_the_script(run: Runner) -> None:
    source = SCRIPT.read_text()
    assert "is not installed" in source
    assert "no answer within" in source
    assert "AuthFailed" in run(FIVETRAN_API_SECRET="wrong-secret").err
    assert "NotFound_Connection" in run(FIVETRAN_CONNECTOR_ID="wrong").err


def test_commands_in_the_text_name_what_is_there() -> None:
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", text)
    for path in re.findall(r"(?:tests/)?\w+\.py\b", " ".join(inline)):
        assert (ROOT / path).is_file(), path
    assert "uv run fivetran_execute_sync.py" in inline
    assert "pipx run ./fivetran_execute_sync.py" in inline


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    for anchor in re.findall(r"\]\(#(.*?)\)", README):
        assert anchor in anchors


def test_the_script_names_the_requirement_that_is_installed() -> None:
    """PEP 723: `uv run` and `pipx run` read it from the script."""
    head = re.match(r"#!.*\n# /// script\n(.*?)# ///\n", SCRIPT.read_text(), re.DOTALL)
    assert head
    metadata = dict(
        re.findall(r"^# ([a-z-]+) = (.+)$", head[1], re.MULTILINE),
    )
    requirements = (ROOT / "requirements.txt").read_text().split()
    assert ast.literal_eval(metadata["dependencies"]) == requirements
    assert json.loads(metadata["requires-python"]) == ">=3.9"
    assert f"`requests`, `{requirements[0].removeprefix('requests')}`" in README


def test_the_script_can_be_read_in_five_minutes() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 300


def test_the_layout_is_the_one_the_owner_fixed() -> None:
    listed = execute(["git", "ls-files"], cwd=ROOT)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    assert {name.partition("/")[0] for name in listed.stdout.split()} <= {
        ".ci",
        ".gitignore",
        "README.md",
        "fivetran_execute_sync.py",
        "requirements.txt",
        "tests",
    }
