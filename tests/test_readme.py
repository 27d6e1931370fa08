"""The commands in the README do what it says; it, --help and the script agree."""

import os
import re
import shutil
import stat
import sys
from datetime import datetime, timezone

import harness
import pytest
from fake_fivetran import Connection
from harness import CONNECTOR_ID, SCRIPT, execute

from fivetran_execute_sync import REFUSALS, argument_parser

ROOT = SCRIPT.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)\n *```$", README, re.MULTILINE | re.DOTALL)
HELP = argument_parser().format_help()


def block(part, language="sh"):
    """Return the only block of a language that has a part, without its indentation."""
    (found,) = (text for name, text in BLOCKS if name == language and part in text)
    return re.sub("^ +", "", found, flags=re.MULTILINE)


RUN = block("fivetran_execute_sync.py --connector-id s")
FROM_FILE = block("grep")
ASK = FROM_FILE.partition("\n")[2][:-1]
_, JOB = block("MAILTO=", "crontab").splitlines()
PINGED = JOB.replace(".py)", ".py && echo pinged)")
JOBS = block("xargs", "crontab")


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
    """Type a command into the plainest shell, in the clone."""
    environment = environment or {"PATH": os.environ["PATH"]}
    environment = {**environment, "HOME": str(home), "TMPDIR": str(home)}
    options.update(cwd=home / "fivetran-execute-sync", env=environment)
    return execute([shutil.which("dash") or "sh", "-c", command], **options)


def test_the_local_fivetran_gives_the_first_success_and_the_wrong_secret(home):
    _, first = block("trustme").split(" trustme &&")
    process = dash(home, first)
    assert (process.returncode, process.stdout.count("The sync was started.")) == (0, 1)
    assert "HTTP 401, AuthFailed" in dash(home, block("--api-secret wrong")).stderr
    (shell,) = re.findall(r"`(\S+ tests/fake_fivetran.py sh)`", README)
    assert "The sync was started." in dash(home, shell, input=RUN).stdout


def test_a_run_in_a_shell_prints_the_sample(home, script):
    prompted, *sample = block("", "console").splitlines()
    assert prompted == f"$ {RUN}"
    environment = {**script.environment, **dict.fromkeys(harness.INPUTS, "")}
    typed = f"{harness.API_KEY}\n{harness.API_SECRET}\n"
    read = block("stty -echo")  # which finds no terminal here
    process = dash(home, f"{read}\n{RUN}", environment, input=typed)
    changing = r"\d{4}-\d\d-\S+Z|[0-9a-f]{32}|/\S*(?=/shipyard)"
    shown = [re.sub(changing, "", line) for line in process.stdout.splitlines()]
    sample = [re.sub(changing, "", line) for line in sample]
    assert shown == ["API key: ", "API secret: ", *sample]


ENDS = {"exit 7": 7, "kill $PPID": 143, "kill -INT 0": 130, "kill -HUP 0": 129}


@pytest.mark.parametrize("end", ENDS)
def test_the_local_fivetran_leaves_nothing_behind(tmp_path, end):
    command = f'>"$SHIPYARD_ARTIFACTS_DIRECTORY/x"; {end}; exec sleep 1000'
    words = [sys.executable, ROOT / "tests" / "fake_fivetran.py", "sh", "-c", command]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    process = execute(words, env=environment, start_new_session=True)
    assert (process.returncode, list(tmp_path.iterdir())) == (ENDS[end], [])


@pytest.fixture
def cron(home, script):
    """Do what the README says, then run a line of the crontab; return mail and log."""
    dash(home, block("touch ~/.fivetran"), script.environment)
    file, log = home / ".fivetran", home / "fivetran.log"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text()
    for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):
        lines = re.sub(f"#{name}='.*'", f"{name}='{script.environment[name]}'", lines)
    # The certificates of a real network are the system's, too, where curl finds them.
    file.write_text(f"{lines}CURL_CA_BUNDLE={script.environment['CURL_CA_BUNDLE']}\n")
    dash(home, block("touch ~/.fivetran"))  # where nothing was typed: changes nothing

    def run(line):
        assert "%" not in line  # a line end to cron
        command = re.sub(r"^(\S+ ){5}", "", line)
        bare = ["env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "/bin/sh", "-c"]
        process = execute([*bare, command], cwd=home)
        return process.stdout + process.stderr, log.read_text() if log.is_file() else ""

    return run


def test_a_job_that_succeeds_is_logged_and_sends_no_mail(cron, home):
    assert JOB in HELP
    by_hand = dash(home, block("env -i"))
    assert (by_hand.returncode, by_hand.stderr) == (0, "")
    mail, log = cron(PINGED)
    assert (mail, log.count("The sync was started.")) == ("", 1)
    assert log.endswith(").\npinged\n")
    (home / "fivetran.log").unlink()
    (home / "fivetran.log").symlink_to("/dev/full")
    assert cron(JOB) == ("", "")


WRONG = "sed -i s/local_secret/wrong/ .fivetran"
SPOILED = {
    "rm -r fivetran-execute-sync": "can't cd",
    "rm .fivetran": "cannot open",
    "rm -r fivetran-execute-sync/.venv": ".venv/bin/python: not found",
    "sed -i s/_SECRET=.*/_SECRET=/ .fivetran": "missing --api-secret",
    "sed -i 's/KEY=/KEY=a;/' .fivetran": ": not found",
    WRONG: "The sync was not started. HTTP 401",
    f"{WRONG}; ln -s /dev/full fivetran.log": "The sync was not started. HTTP 401",
    f"{WRONG}; mkdir fivetran.log": "fivetran.log",
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_whatever_fails_is_mailed_and_logged_if_it_can_be(cron, home, spoil):
    execute(["sh", "-c", spoil], cwd=home)
    mail, log = cron(PINGED)
    # Shells other than dash use words of their own.
    assert SPOILED[spoil] in mail or os.readlink("/bin/sh") != "dash"
    assert "pinged" not in mail + log
    assert "fivetran.log" in spoil or set(mail.splitlines()) <= set(log.splitlines())


def test_of_many_connectors_the_failures_alone_are_mailed(home, cron, fivetran):
    names = [f"connector_{number}" for number in range(9)]
    fivetran.connections = {name: Connection(name) for name in names}
    listed = home / "fivetran-execute-sync" / "connectors.txt"
    listed.write_text("\r\n".join([*names[:6], "not/an/ID", "", "unknown", *names[6:]]))
    mail, log = cron(JOBS)
    records = os.listdir(listed.parent / harness.FILES / "variables")
    assert sorted(records) == [f"{name}_force_sync.pickle" for name in names]
    assert all(connection.syncs for connection in fivetran.connections.values())
    assert "'not/an/ID'" in mail and "unknown: The sync was not started. HTTP" in mail
    assert set(mail.splitlines()) <= set(log.splitlines())
    assert (mail.count(" was started."), log.count(" was started.")) == (0, len(names))


@pytest.mark.skipif(not shutil.which("curl"), reason="takes curl")
def test_commands_set_the_schedule_and_ask_how_it_ended(home, script, fivetran, cron):
    said = dash(home, block("PATCH"), script.environment).stdout
    connection = fivetran.connections[CONNECTOR_ID]
    assert '"schedule_type": "manual"' in said and connection.schedule_type == "manual"
    connection.syncs.append(datetime.now(timezone.utc))
    for seconds, state, at in ((9_999, "syncing", "null"), (0, "scheduled", '"20')):
        connection.sync_seconds = seconds
        said = dash(home, ASK, script.environment).stdout
        assert dash(home, FROM_FILE).stdout == said
        assert f'"succeeded_at": {at}' in said
        assert '"failed_at": null\n"setup_state": "connected"\n' in said
        assert f'"sync_state": "{state}"\n' in said
    refusal = '"code": "AuthFailed"\n"message": "Invalid authorization credentials"\n'
    # Where none was typed, curl is not even run.
    for secret, shown in (("wrong", refusal), ("", "")):
        environment = {**script.environment, "FIVETRAN_API_SECRET": secret}
        assert dash(home, ASK, environment).stdout == shown


def test_the_readme_agrees_with_help_and_ci():
    variables = re.findall(r'"([A-Z]+_[A-Z_]+)"', SCRIPT.read_text())
    assert len(variables) >= 5 and all(name in HELP for name in variables)
    in_help = re.findall(r"^  (\d+)", HELP.partition("Exit codes")[2], re.MULTILINE)
    for rows in (in_help, re.findall(r"^([\d, ]+) \| ", README, re.MULTILINE)):
        assert {int(code) for code in ",".join(rows).split(",")} == harness.EXIT_CODES
    assert {code for code, _ in REFUSALS.values()} < harness.EXIT_CODES
    assert "exit codes 1-2 and 200-248" in README  # which leaves 130, 143 and 249
    assert f"`{(ROOT / 'requirements.txt').read_text().strip()}`" in README
    assert block("-m pytest") in (ROOT / ".ci" / "run").read_text()
