"""The commands in the README do what it says; it, --help and the script agree."""

import os
import re
import shutil
import stat
import sys
import textwrap

import harness
import pytest
from fake_fivetran import Connection
from harness import CONNECTOR_ID, EXIT_CODES, SCRIPT, UNKNOWN_ID, execute

from fivetran_execute_sync import REFUSALS, argument_parser

ROOT = SCRIPT.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w+)\n *(.*?)\n *```$", README, re.MULTILINE | re.DOTALL)
HELP = argument_parser().format_help()
REQUIREMENT = (ROOT / "requirements.txt").read_text().strip()
DASH = shutil.which("dash") or "sh"  # the plainest shell there is


def block(part, language="sh"):
    """Return the only block of a language that has a part."""
    (found,) = (text for name, text in BLOCKS if name == language and part in text)
    return found


@pytest.fixture
def home(tmp_path):
    """A home with a clone, and the Python of the tests in its virtual environment."""
    clone = tmp_path / "home" / "fivetran-execute-sync"
    (clone / ".venv" / "bin").mkdir(parents=True)
    for name in ("fivetran_execute_sync.py", "tests"):
        (clone / name).symlink_to(ROOT / name)
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -B "$@"\n')
    python.chmod(0o755)
    return clone.parent


def dash(home, command, environment=None, **options):
    """Type a command into dash, in the clone."""
    environment = environment or {"PATH": os.environ["PATH"]}
    environment = {**environment, "HOME": str(home), "TMPDIR": str(home)}
    folder = home / "fivetran-execute-sync"
    return execute([DASH, "-c", command], cwd=folder, env=environment, **options)


def test_the_local_fivetran_gives_the_first_success_and_the_wrong_secret(home):
    _, set_up, first = re.split(r"(.* trustme && )", block("trustme"))
    assert set_up.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    process = dash(home, first)
    assert (process.returncode, process.stdout.count("The sync was started.")) == (0, 1)
    process = dash(home, block("--api-secret wrong"))
    assert process.returncode == 200
    assert "The sync was not started. HTTP 401, AuthFailed" in process.stderr
    (shell,) = re.findall(r"`(\S+ tests/fake_fivetran.py sh)`", README)
    typed = block("fivetran_execute_sync.py --connector-id s")
    assert "The sync was started." in dash(home, shell, input=typed).stdout


def test_a_run_in_a_shell_ends_like_the_sample(home, script):
    prompted, line = block("", "console").splitlines()
    command = block("fivetran_execute_sync.py --connector-id s")
    assert prompted == f"$ {command}"
    empty = {"FIVETRAN_API_KEY": "", "FIVETRAN_API_SECRET": ""}
    typed = f"{harness.API_KEY}\n{harness.API_SECRET}\n"
    read = f"{block('stty -echo')}\n{command}"
    process = dash(home, read, {**script.environment, **empty}, input=typed)
    assert process.returncode == 0  # though stty finds no terminal
    assert process.stdout.startswith("API key: \nAPI secret: \n20")
    changing = r"\d{4}-\d\d-\S+Z|[0-9a-f]{32}"
    last = process.stdout.splitlines()[-1]
    assert re.sub(changing, "", last) == re.sub(changing, "", line)


@pytest.fixture
def cron(home, script):
    """Do what the README says, then run a line of the crontab; return mail and log."""
    (create,) = re.findall(r"`(touch ~/.fivetran && .*?)`", README)
    dash(home, create)
    file = home / ".fivetran"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = block("='YOUR-KEY'").replace("YOUR-KEY", harness.API_KEY)
    lines = lines.replace("YOUR-SECRET", harness.API_SECRET)
    for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):
        assert f"`{name}`" in README
        lines += f"\nexport {name}='{script.environment[name]}'"
    file.write_text(f"{lines}\n")

    def run(line):
        assert "%" not in line  # a line end to cron
        command = line.replace("15 * * * * ", "")
        bare = ["env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "/bin/sh", "-c"]
        process = execute([*bare, command], cwd=home)
        (log,) = home.glob("*.log")
        return process.stdout + process.stderr, log.read_text()

    return run


JOB = block("|| tail", "crontab")


def test_a_job_that_succeeds_is_logged_and_sends_no_mail(cron, home):
    assert JOB in HELP
    by_hand = dash(home, block("env -i"))
    assert (by_hand.returncode, by_hand.stderr) == (0, "")
    mail, log = cron(JOB)
    assert mail == ""
    assert log.splitlines()[-1].count("The sync was started.") == 1


# Ways to spoil the job, and what the last line then says.
SPOILED = {
    "rm -r fivetran-execute-sync": "can't cd",
    "rm .fivetran": "cannot open",
    "rm -r fivetran-execute-sync/.venv": ".venv/bin/python: not found",
    "sed -i s/aS3/wrong/ .fivetran": "The sync was not started. HTTP 401",
    "sed -i s/export// .fivetran": "missing --api-key",
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_whatever_fails_is_logged_and_mailed(cron, home, spoil):
    execute(["sh", "-c", spoil], cwd=home)
    mail, log = cron(JOB)
    # Shells other than dash use words of their own.
    assert SPOILED[spoil] in mail or os.readlink("/bin/sh") != "dash"
    assert mail in log
    assert mail.count("\n") == 1


def test_of_many_connectors_the_failures_alone_are_mailed(home, cron, fivetran):
    clone = home / "fivetran-execute-sync"
    listed = clone / "connectors.txt"
    listed.write_text("not/an/ID")
    in_a_shell, in_cron = block("xargs"), block("tee", "crontab")
    assert dash(home, in_a_shell).returncode == 123
    assert f"&& {in_a_shell})" in in_cron
    names = [f"connector_{number}" for number in range(9)]
    fivetran.connections = {name: Connection(name) for name in names}
    lines = [*names[:6], "not/an/ID", "", UNKNOWN_ID, *names[6:]]
    listed.write_text("\r\n".join(lines))
    mail, log = cron(in_cron)
    records = os.listdir(clone / "shipyard-artifacts/fivetran-blueprints/variables")
    assert sorted(records) == [f"{name}_force_sync.pickle" for name in names]
    assert all(connection.syncs for connection in fivetran.connections.values())
    assert "'not/an/ID'" in mail
    assert f"{UNKNOWN_ID}: The sync was not started. HTTP 404" in mail
    assert "The sync was started." not in mail
    assert set(mail.splitlines()) <= set(log.splitlines())
    assert log.count("The sync was started.") == len(names)


@pytest.mark.skipif(not shutil.which("curl"), reason="takes curl")
def test_commands_set_the_schedule_and_ask_how_it_ended(home, script, fivetran):
    connection = fivetran.connections[CONNECTOR_ID]
    said = dash(home, block("PATCH"), script.environment).stdout
    assert '"schedule_type": "manual"' in said
    assert connection.schedule_type == "manual"
    connection.start()
    for seconds, state, at in ((9_999, "syncing", "null"), (0, "scheduled", '"20')):
        connection.sync_seconds = seconds
        said = dash(home, block("grep"), script.environment).stdout
        assert f'"succeeded_at": {at}' in said
        assert f'"failed_at": null\n"sync_state": "{state}"\n' in said
    wrong = {**script.environment, "FIVETRAN_API_SECRET": "wrong"}
    refusal = '"code": "AuthFailed"\n"message": "Invalid authorization credentials"\n'
    assert dash(home, block("grep"), wrong).stdout == refusal


# What a shell says, and Python 3.6; this file causes some of it.
OTHERS_WORDS = """.venv/bin/python: not found, No such file, can't cd, cannot open,
bad variable name, Unterminated quoted string, future feature annotations is not defined
"""


def test_the_table_has_the_words_of_the_messages_that_other_tests_cause():
    rows = re.findall(r"^\| (`.*`) \| \w", README, re.MULTILINE)
    phrases = re.findall(r"`(.*?)`", " ".join(rows))
    told = {int(phrase[5:]) for phrase in phrases if phrase.startswith("HTTP ")}
    assert told == {*REFUSALS, 500}
    others = set(ROOT.glob("tests/test_*.py")) - {ROOT / "tests/test_readme.py"}
    known = OTHERS_WORDS + "".join(file.read_text() for file in others)
    assert all(phrase in known or phrase.startswith("HTTP ") for phrase in phrases)


def test_every_argument_variable_and_exit_code_is_named():
    flags = re.findall(r"--[a-z-]+", argument_parser().format_usage())
    for name in (*flags, *re.findall(r'"([A-Z]+_[A-Z_]+)"', SCRIPT.read_text())):
        assert f"`{name}`" in README
        assert name in HELP
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert [code for code, meaning in rows if "**try again" in meaning] == ["249"]
    codes = re.findall(r"^  (\d+) ", HELP.partition("exit codes:\n")[2], re.MULTILINE)
    assert [int(code) for code, _ in rows] == [int(code) for code in codes]
    assert {int(code) for code in codes} == EXIT_CODES
    assert {code for code, _ in REFUSALS.values()} < EXIT_CODES


def test_the_vessel_gets_the_inputs_and_retries_what_another_try_may_mend(home):
    (indent,) = re.findall(r"`(sed .*?)`", README)
    before, after = block("vessels:", "yaml").split("          THE SCRIPT\n")
    assert before.endswith("content: |\n")
    assert textwrap.dedent(dash(home, indent).stdout) == SCRIPT.read_text()
    version = REQUIREMENT.removeprefix("requests")
    assert f'{{name: requests, version: "{version}"}}' in after
    assert re.findall(r"name: (FIV\w+), value", after) == list(harness.INPUTS)
    assert 'exclude_exit_code_ranges: ["1-2", "200-248"]' in after
    again = {code for code in EXIT_CODES if code > 2 and not 200 <= code <= 248}
    assert again == {130, 143, 249}


def test_the_script_names_the_requirement_and_ci_the_command_of_the_readme():
    """PEP 723: `uv run` reads the requirement from the script."""
    assert f'# dependencies = ["{REQUIREMENT}"]\n' in SCRIPT.read_text()
    assert block("-m pytest") in (ROOT / ".ci" / "run").read_text()
