"""Every command and every sample of output in the README is what really happens."""

from __future__ import annotations

import ast
import json
import os
import pickle
import pty
import re
import select
import shutil
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import (
    API_KEY,
    API_SECRET,
    CONNECTOR_ID,
    EXIT_CODES,
    PATIENCE,
    README,
    SCRIPT,
    UNKNOWN_ID,
    Runner,
    execute,
)
from fake_fivetran import Connection, FakeFivetran

ROOT = SCRIPT.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
DASH = shutil.which("dash") or "sh"  # the plainest shell there is
SET_UP = (
    r"python3 -m venv \.venv && \.venv/bin/pip install -q -r requirements\.txt[^&]*"
)
RETRY_HELPS = {249}
FROM_OUTSIDE = {0, 130, 143}  # no failure, or not one of this run


def block(language: str, part: str) -> str:
    """Return the only block of a language that has a part."""
    (found,) = (text for name, text in BLOCKS if name == language and part in text)
    return found.strip()


def without_set_up(command: str) -> str:
    """Return a command without the part that downloads: here the tests' own environment
    stands in the place of what it would make."""
    short, count = re.subn(f"{SET_UP}&& ", "", command)
    assert count == 1
    return short


def normal(output: str) -> str:
    """Return output without what differs from run to run."""
    output = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "(time)", output)
    return re.sub(r"\b[0-9a-f]{32}\b", "(request ID)", output)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a clone in it, and in that the virtual environment of the tests."""
    clone = tmp_path / "home" / "fivetran-execute-sync"
    # The last: where TMPDIR lies in the checkout, this folder would be copied into itself.
    ignored = shutil.ignore_patterns(".venv", ".git", "__pycache__", "pytest-of-*")
    shutil.copytree(ROOT, clone, ignore=ignored)
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -B "$@"\n')
    python.chmod(0o755)
    return clone.parent


class Shell:
    """Types commands into dash, in the clone, with a way to the local Fivetran."""

    def __init__(self, home: Path, run: Runner) -> None:
        self.clone = home / "fivetran-execute-sync"
        self.environment = {**run.environment, "HOME": str(home)}
        del self.environment["FIVETRAN_CONNECTOR_ID"]

    def __call__(self, command: str, **variables: str) -> Any:
        environment = {**self.environment, **variables}
        return execute([DASH, "-c", command], cwd=self.clone, env=environment)


@pytest.fixture
def shell(home: Path, run: Runner) -> Shell:
    return Shell(home, run)


def test_no_block_goes_untested() -> None:
    languages = sorted(language for language, _ in BLOCKS)
    assert languages == ["console", "crontab", "env", *["sh"] * 12, "yaml"]


def test_the_sample_at_the_top_is_what_its_command_prints(shell: Shell) -> None:
    command, output = block("console", "$ ").removeprefix("$ ").split("\n", 1)
    process = shell(command)
    assert (process.returncode, process.stderr) == (0, "")
    assert normal(process.stdout) == normal(f"{output}\n")


def test_clone_and_enter(home: Path, tmp_path: Path) -> None:
    clone = home / "fivetran-execute-sync"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for git in ("init -q .", "add .", "-c user.name=x -c user.email=x@x commit -qm x"):
        process = execute(["git", *git.split()], cwd=clone, env=environment)
        assert process.returncode == 0, process.stderr
    command = block("sh", "git clone").replace("ADDRESS-OF-THIS-REPOSITORY", str(clone))
    update = block("sh", "git pull").partition(" && .venv/bin/pip")[0]
    process = execute([DASH, "-c", f"{command} && ls && {update}"], env=environment)
    assert process.returncode == 0, process.stderr
    assert "fivetran_execute_sync.py" in process.stdout


def test_try_it_runs_the_script_against_the_local_fivetran(home: Path) -> None:
    command = block("sh", "trustme && .venv/bin/python tests/fake_fivetran.py")
    environment = {"PATH": os.environ["PATH"]}
    for line, code in (
        (without_set_up(command), 0),
        (block("sh", "--api-secret wrong"), 200),
    ):
        clone = home / "fivetran-execute-sync"
        process = execute([DASH, "-c", line], cwd=clone, env=environment)
        assert process.returncode == code
        assert "> POST https://api.fivetran.com/v1/connections/" in process.stderr


def test_run_it_does_what_it_says(shell: Shell) -> None:
    command = block("sh", "requirements.txt && .venv/bin/python fivetran_execute_sync")
    process = shell(without_set_up(command))
    assert (process.returncode, process.stderr) == (0, "")


def test_inputs_are_read_without_showing_the_secret() -> None:
    """Pasted into dash on a terminal."""
    terminal, its_end = pty.openpty()
    dash = subprocess.Popen(
        [DASH, "-i"],
        env={"PS1": "$ ", "PATH": os.environ["PATH"]},
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        start_new_session=True,
    )

    def read_until(prompt: str) -> str:
        said = ""
        while prompt not in said:
            assert select.select([terminal], [], [], PATIENCE)[0], said
            said += os.read(terminal, 1).decode()
        return said

    def type_line(line: str) -> None:
        os.write(terminal, f"{line}\n".encode())

    read_until("$ ")
    type_line(block("sh", "stty -echo"))
    read_until("\nAPI key: ")
    type_line("my-key")
    read_until("\nAPI secret: ")
    type_line("s3cret")
    assert "s3cret" not in read_until("$ ")
    type_line('env | grep FIVETRAN | sort | tr "\\n" " "')
    read_until("FIVETRAN_API_KEY=my-key FIVETRAN_API_SECRET=s3cret ")
    type_line("exit")
    assert dash.wait(PATIENCE) == 0
    os.close(its_end)
    os.close(terminal)


def test_test_it_runs_these_tests_and_is_what_ci_runs(shell: Shell) -> None:
    command = block("sh", "-m pytest")
    assert command in (ROOT / ".ci" / "run").read_text()
    process = shell(f"{without_set_up(command)} --collect-only -q -n 0 -k readme")
    assert "test_readme.py" in process.stdout


# Cron ------------------------------------------------------------------------------------


def set_up_cron(shell: Shell, home: Path, secret: str) -> None:
    """Do what the README says, and let the file name the way to the local Fivetran."""
    command = block("sh", "umask 077")
    shell(re.sub(SET_UP, "true ", command))
    file = home / ".fivetran"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = block("env", "FIVETRAN_CONNECTOR_ID")
    lines = lines.replace("the API key", API_KEY).replace("the API secret", secret)
    for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):
        lines += f"\nexport {name}='{shell.environment[name]}'"
    file.write_text(f"{lines}\n")


def cron(home: Path, command: str) -> Any:
    """Run a command as cron does; what it prints would be mailed."""
    bare = [f"HOME={home}", "PATH=/usr/bin:/bin", "SHELL=/bin/sh"]
    return execute(["env", "-i", *bare, "/bin/sh", "-c", command], cwd=home)


def crontab_line() -> str:
    _, command = re.split(r"(?<=^15 \* \* \* \*) ", block("crontab", "* * * *"))
    assert "%" not in command  # a line end to cron
    return command


def test_cron_is_silent_when_all_is_well_and_logs_it(shell: Shell, home: Path) -> None:
    set_up_cron(shell, home, API_SECRET)
    by_hand = execute(
        [DASH, "-c", block("sh", "env -i")],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
    )
    assert by_hand.returncode == 0, by_hand.stderr
    process = cron(home, crontab_line())
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    log = (home / "fivetran.log").read_text()
    assert normal(log) == normal(by_hand.stdout)


def test_cron_mails_what_failed(shell: Shell, home: Path) -> None:
    set_up_cron(shell, home, "something else")
    process = cron(home, crontab_line())
    assert process.returncode == 200
    (line,) = (process.stdout + process.stderr).splitlines()
    assert "HTTP 401" in line
    shutil.move(home / ".fivetran", home / "elsewhere")
    process = cron(home, crontab_line())
    assert ".fivetran" in process.stdout + process.stderr


def test_windows_line_ends_do_no_harm_or_are_removed(shell: Shell, home: Path) -> None:
    set_up_cron(shell, home, API_SECRET)
    file = home / ".fivetran"
    lines = file.read_text().splitlines()
    file.write_bytes("\r\n".join([*lines[:3], "", ""]).encode())
    process = cron(home, crontab_line())
    assert "not found" in process.stderr
    (repair,) = re.findall(r"`(sed -i .*? ~/\.fivetran)`", README)
    shell(repair)
    assert b"\r" not in file.read_bytes()
    file.write_text("\n".join(lines))
    assert cron(home, crontab_line()).returncode == 0


def test_the_line_for_cron_is_the_one_in_the_help(run: Runner) -> None:
    assert (
        block("crontab", "* * * *")
        in run.start("--help").communicate(timeout=PATIENCE)[0]
    )


# Shipyard --------------------------------------------------------------------------------


def test_the_fleet_holds_the_script_and_retries_what_another_try_may_mend() -> None:
    fleet = block("yaml", "vessels:")
    (indented,) = re.findall(r"^ +PASTE THE SCRIPT HERE.*$", fleet, re.MULTILINE)
    margin = indented[: -len(indented.lstrip())]
    lines = [f"{margin}{line}".rstrip() for line in SCRIPT.read_text().splitlines()]
    vessels = yaml.safe_load(fleet.replace(indented, "\n".join(lines)))["vessels"]
    execute_sync, check = vessels["Execute Sync"], vessels["Check Sync Status"]
    assert execute_sync["source"]["file"]["content"] == SCRIPT.read_text()
    assert execute_sync["source"]["packages"] == [
        {"name": "requests", "version": requirement().removeprefix("requests")}
    ]
    names = {variable["name"] for variable in execute_sync["source"]["environment"]}
    assert names == set(check["source"]["inputs"])
    assert check["source"]["inputs"]["FIVETRAN_CONNECTOR_ID"] is None
    excluded = codes(execute_sync["guardrails"]["exclude_exit_code_ranges"])
    assert EXIT_CODES - excluded == RETRY_HELPS | FROM_OUTSIDE
    assert codes(check["guardrails"]["exclude_exit_code_ranges"]) == set(range(1, 255))


def codes(ranges: list[str]) -> set[int]:
    bounds = [tuple(map(int, text.split("-"))) for text in ranges]
    return {code for first, last in bounds for code in range(first, last + 1)}


# How did it end? -------------------------------------------------------------------------


def test_how_it_ended_is_asked_with_one_command(
    shell: Shell, fivetran: FakeFivetran
) -> None:
    connection = fivetran.connections[CONNECTOR_ID]
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    force = f".venv/bin/python fivetran_execute_sync.py --connector-id {CONNECTOR_ID}"
    for earlier in ({}, {"succeeded": yesterday, "failed": yesterday}):
        for how in ("still runs", "succeeded", "failed"):
            shell(force)
            connection.ended = {**earlier}
            if how != "still runs":
                connection.finish(how)
            process = shell(block("sh", "pickle.load"))
            assert (process.stdout, process.stderr) == (f"{CONNECTOR_ID} {how}\n", "")
            methods = [request.method for request in fivetran.requests]
            assert methods[-2:] == ["POST", "GET"]


# Many connectors -------------------------------------------------------------------------


def test_many_connectors_each_get_a_record_and_the_wrong_line_is_named(
    shell: Shell, home: Path, fivetran: FakeFivetran
) -> None:
    names = [f"connector_{number}" for number in range(12)]
    fivetran.connections = {name: Connection(name) for name in names}
    listed = [*names[:6], "not an ID", "", UNKNOWN_ID, *names[6:]]
    (shell.clone / "connectors.txt").write_text("\r\n".join(listed))
    command = block("sh", "xargs")
    process = shell(command)
    assert process.returncode == 123
    assert "not an ID" in process.stderr
    assert UNKNOWN_ID in process.stderr
    assert len(process.stderr.splitlines()) == 2
    variables = shell.clone / "shipyard-artifacts/fivetran-blueprints/variables"
    for name in names:
        record = pickle.loads((variables / f"{name}_force_sync.pickle").read_bytes())
        assert record[0] == name
        assert fivetran.connections[name].syncing
    set_up_cron(shell, home, API_SECRET)
    script = ".venv/bin/python fivetran_execute_sync.py"
    assert script in crontab_line()
    process = cron(home, crontab_line().replace(script, command))
    assert process.returncode == 123
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 2


# Reference -------------------------------------------------------------------------------


def test_exit_codes_are_all_listed_and_say_whether_another_try_helps() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| ?(no|yes|) \|$", README, re.MULTILINE)
    assert {int(code) for code, _ in rows} == EXIT_CODES
    assert {int(code) for code, helps in rows if helps == "yes"} == RETRY_HELPS
    assert {int(code) for code, helps in rows if not helps} == FROM_OUTSIDE


def test_inputs_are_those_of_the_help(run: Runner) -> None:
    out, _ = run.start("--help").communicate(timeout=PATIENCE)
    reference = README.partition("## Reference")[2]
    named = re.findall(r"`(--[a-z-]+|[A-Z]+_[A-Z_]+)`", reference)
    assert set(named) >= set(re.findall(r"^  (--[a-z-]+) [A-Z]", out, re.MULTILINE))
    for name in named:
        assert name in out


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {
        re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles
    }
    for anchor in re.findall(r"\]\(#(.*?)\)", README):
        assert anchor in anchors


def requirement() -> str:
    return (ROOT / "requirements.txt").read_text().strip()


def test_the_script_names_the_requirement_that_is_installed() -> None:
    """PEP 723: `uv run` and `pipx run` read it from the script."""
    head = re.match(r"#!.*\n# /// script\n(.*?)# ///\n", SCRIPT.read_text(), re.DOTALL)
    assert head
    metadata = dict(re.findall(r"^# ([a-z-]+) = (.+)$", head[1], re.MULTILINE))
    assert ast.literal_eval(metadata["dependencies"]) == [requirement()]
    assert json.loads(metadata["requires-python"]) == ">=3.9"
    assert f"'{requirement()}'" in SCRIPT.read_text()  # where it says what to type
