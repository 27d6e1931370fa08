#!/usr/bin/env python3
"""What the script costs, next to the shortest program that makes the same call.

    python tests/benchmark.py

Whole processes against the local Fivetran over real TLS, started in pairs A B A B, so
that what else goes on on the machine falls on both alike. Nothing but loopback is used.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fake_fivetran import INPUTS, FakeFivetran

PAIRS = 60
API_KEY, API_SECRET, CONNECTOR_ID = INPUTS.values()
SCRIPT = Path(__file__).resolve().parent.parent / "fivetran_execute_sync.py"
SHORTEST = f"""
import requests
requests.post("https://api.fivetran.com/v1/connections/{CONNECTOR_ID}/sync",
              auth=("{API_KEY}", "{API_SECRET}"), json={{"force": True}}, timeout=60,
              headers={{"Accept": "application/json;version=2"}}).raise_for_status()
"""
# The README's line for many connectors, with the interpreter that runs this.
README = SCRIPT.with_name("README.md").read_text(encoding="utf-8")
(LINE,) = re.findall("^xargs .*", README, re.MULTILINE)
MANY = LINE.replace(".venv/bin/python fivetran_execute_sync.py", '"$0" "$1"')

# Starts each command it reads, from a process so small that its own memory, which a child
# begins with, does not count; prints what the command cost.
LAUNCHER = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    command, environment = json.loads(line)
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    cost = usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024
    print(json.dumps([status, cost]), flush=True)
"""


class Launcher:
    """Runs commands in a folder, one after the other, and measures them."""

    def __init__(self, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", LAUNCHER],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def cost(self, command: list[str], environment: dict[str, str]) -> list[float]:
        """Return CPU and wall clock in seconds and peak memory in MiB of a command."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([command, environment]), file=self.process.stdin, flush=True)
        status, cost = json.loads(self.process.stdout.readline())
        if status:
            sys.exit(f"{command} ended with wait status {status}")
        return cost


def main() -> None:
    script = [sys.executable, str(SCRIPT)]
    shortest = [sys.executable, "-c", SHORTEST]
    connectors = [f"connector_{number}" for number in range(100)]
    with (
        FakeFivetran(connector_ids=(CONNECTOR_ID, *connectors)) as fivetran,
        tempfile.TemporaryDirectory() as folder,
    ):
        launcher = Launcher(folder)
        environment = fivetran.environment(dict(os.environ))
        environment["FIVETRAN_API_KEY"] = API_KEY
        environment["FIVETRAN_API_SECRET"] = API_SECRET
        one = {**environment, "FIVETRAN_CONNECTOR_ID": CONNECTOR_ID}
        for command in (script, shortest):  # fill the caches
            launcher.cost(command, one)
        pairs = [
            (launcher.cost(script, one), launcher.cost(shortest, one))
            for _ in range(PAIRS)
        ]
        print(f"Medians of {PAIRS} pairs, Python {sys.version.split()[0]}:\n")
        print(f"| {'':<16} | the script | requests.post | ratio |")
        print("|:-----------------|-----------:|--------------:|------:|")
        for index, name in enumerate(("CPU, s", "wall clock, s", "peak memory, MiB")):
            ours = statistics.median(pair[0][index] for pair in pairs)
            theirs = statistics.median(pair[1][index] for pair in pairs)
            ratio = statistics.median(pair[0][index] / pair[1][index] for pair in pairs)
            print(f"| {name:<16} | {ours:10.3f} | {theirs:13.3f} | {ratio:5.2f} |")
        print()
        print(f"| {'connectors':<16} | CPU, s | wall clock, s |")
        print("|:-----------------|-------:|--------------:|")
        for count in (1, 10, 100):
            lines = "".join(f"{name}\n" for name in connectors[:count])
            Path(folder, "connectors.txt").write_text(lines)
            cpu, wall, _ = launcher.cost(["sh", "-c", MANY, *script], environment)
            print(f"| {count:<16} | {cpu:6.2f} | {wall:13.2f} |")


if __name__ == "__main__":
    main()
