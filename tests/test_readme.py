"""The commands in the README do what it says, and it agrees with the script."""

import os
import re
import shutil
import stat
import sys

import pytest
import yaml
from conftest import (
    API_KEY,
    API_SECRET,
    CONNECTOR_ID,
    EXIT_CODES,
    INPUTS,
    SCRIPT,
    UNKNOWN_ID,
    execute,
)
from fake_fivetran import Connection

ROOT = SCRIPT.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)
REQUIREMENT = (ROOT / "requirements.txt").read_text().strip()
DASH = shutil.which("dash") or "sh"  # the plainest shell there is
PATH = {"PATH": os.environ["PATH"]}


def block(part, language="sh"):
    """Return the only block of a language that has a part."""
    (found,) = (text for name, text in BLOCKS if name == language and part in text)
    return found


def without_set_up(command):
    """Return a command without the part that downloads."""
    set_up = r"python3 -m venv \.venv && \.venv/bin/pip install -q [^&]* && "
    short, count = re.subn(set_up, "", command)
    assert count == 1
    return short


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


@pytest.fixture
def dash(home):
    """Type a command into dash, in the clone."""

    def dash(command, environment, **options):
        environment = {**environment, "HOME": str(home)}
        folder = home / "fivetran-execute-sync"
        return execute([DASH, "-c", command], cwd=folder, env=environment, **options)

    return dash


def test_no_command_goes_untested():
    """Not run: git clone and uv run."""
    languages = sorted(language for language, _ in BLOCKS)
    assert languages == ["console", "crontab", "env", *["sh"] * 9, "yaml"]


def test_trying_it_prints_the_sample(dash):
    first = dash(without_set_up(block("trustme")), PATH)
    second = dash(block("--api-secret wrong"), PATH)
    assert (first.returncode, second.returncode) == (0, 200)
    lines = [first.stdout.splitlines()[-1], second.stderr.splitlines()[-1]]
    changing = r"\d{4}-\d\d-\S+Z|[0-9a-f]{32}"
    sample = re.sub(changing, "", block("", "console")).splitlines()
    assert [re.sub(changing, "", line) for line in lines] == sample


def test_a_run_in_a_shell(dash, run):
    read = block("stty -echo")
    command = block("fivetran_execute_sync.py --connector-id speak")
    environment = {**run.environment, "FIVETRAN_API_KEY": "", "FIVETRAN_API_SECRET": ""}
    typed = f"{API_KEY}\n{API_SECRET}\n"
    process = dash(f"{read}\n{command}", environment, input=typed)
    assert process.returncode == 0  # though stty finds no terminal
    assert process.stdout.startswith("API key: \nAPI secret: \n20")


def set_up_cron(home, dash, run, secret):
    """Do what the README says, and let the file name the way to the local Fivetran."""
    (create,) = re.findall(r"`(\(umask .*?)`", README)
    dash(create, PATH)
    file = home / ".fivetran"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = block("export", "env")
    lines = lines.replace("the API key", API_KEY).replace("the API secret", secret)
    for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):
        assert f"`{name}`" in README
        lines += f"\nexport {name}='{run.environment[name]}'"
    file.write_text(f"{lines}\n")


def test_cron_mails_what_failed_and_logs_the_rest(home, dash, run):
    line = block("* * * *", "crontab")
    assert line in execute([*run.command, "--help"]).stdout
    assert "%" not in line  # a line end to cron

    def cron():
        bare = ["env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "/bin/sh", "-c"]
        return execute([*bare, line.replace("15 * * * * ", "")], cwd=home)

    set_up_cron(home, dash, run, API_SECRET)
    by_hand = dash(block("env -i"), PATH)
    assert (by_hand.returncode, by_hand.stderr) == (0, "")
    process = cron()
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert "The sync was started." in (home / "fivetran.log").read_text()
    set_up_cron(home, dash, run, "something else")
    process = cron()
    assert (process.returncode, process.stdout) == (200, "")
    assert "HTTP 401" in process.stderr


def test_many_connectors_each_get_a_record_and_the_wrong_line_is_named(
    home, dash, run, fivetran
):
    names = [f"connector_{number}" for number in range(9)]
    fivetran.connections = {name: Connection(name) for name in names}
    listed = [*names[:6], "not/an/ID", "", UNKNOWN_ID, *names[6:]]
    clone = home / "fivetran-execute-sync"
    (clone / "connectors.txt").write_text("\r\n".join(listed))
    process = dash(block("xargs"), run.environment)
    assert process.returncode == 123
    assert "'not/an/ID'" in process.stderr
    assert UNKNOWN_ID in process.stderr
    records = os.listdir(clone / "shipyard-artifacts/fivetran-blueprints/variables")
    assert sorted(records) == [f"{name}_force_sync.pickle" for name in names]
    assert all(fivetran.connections[name].syncing for name in names)


def test_the_vessel_holds_the_script_and_retries_what_another_try_may_mend(dash):
    (indent,) = re.findall(r"`(sed .*?)`", README)
    indented = dash(indent, PATH).stdout
    vessel = block("vessels:", "yaml").replace("          THE SCRIPT\n", indented)
    (vessel,) = yaml.safe_load(vessel)["vessels"].values()
    source = vessel["source"]
    assert source["file"]["content"] == SCRIPT.read_text()
    package = {"name": "requests", "version": REQUIREMENT.removeprefix("requests")}
    assert source["packages"] == [package]
    assert [variable["name"] for variable in source["environment"]] == list(INPUTS)
    excluded = set()
    for text in vessel["guardrails"]["exclude_exit_code_ranges"]:
        first, last = text.split("-")
        excluded |= set(range(int(first), int(last) + 1))
    assert EXIT_CODES - excluded == {0, 130, 143, 249}


@pytest.mark.skipif(not shutil.which("curl"), reason="takes curl")
def test_how_it_ended_is_asked_with_one_command(dash, run, fivetran):
    connection = fivetran.connections[CONNECTOR_ID]
    connection.start()
    for state, at in (("syncing", "null"), ("scheduled", '"20')):
        lines = dash(block("curl"), run.environment).stdout.splitlines()
        assert lines[0].startswith(f'"succeeded_at": {at}')
        assert lines[1:] == ['"failed_at": null', f'"sync_state": "{state}"']
        connection.finish()


def test_exit_codes_are_all_listed():
    rows = re.findall(r"^\| (\d+) \| .* \| ?(no|yes|) \|$", README, re.MULTILINE)
    assert {int(code) for code, _ in rows} == EXIT_CODES
    assert [code for code, helps in rows if helps == "yes"] == ["249"]


def test_the_tests_are_what_ci_runs():
    assert block("-m pytest") in (ROOT / ".ci" / "run").read_text()


def test_the_script_names_the_requirement_that_is_installed():
    """PEP 723: `uv run` reads it from the script."""
    assert f'# dependencies = ["{REQUIREMENT}"]\n' in SCRIPT.read_text()
