#!/usr/bin/env python3
"""What the script costs, next to the shortest program that makes the same call.

    python tests/benchmark.py

Whole processes against the local Fivetran over real TLS, started in pairs A B A B, so
that what else goes on on the machine falls on both alike. Nothing but loopback is used.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from fake_fivetran import API_KEY, API_SECRET, CONNECTOR_ID, FakeFivetran

PAIRS = 60
SCRIPT = Path(__file__).resolve().parent.parent / "fivetran_execute_sync.py"
SHORTEST = f"""
import requests
requests.post("https://api.fivetran.com/v1/connections/{CONNECTOR_ID}/sync",
              auth=("{API_KEY}", "{API_SECRET}"), json={{"force": True}}, timeout=60,
              headers={{"Accept": "application/json;version=2"}}).raise_for_status()
"""
# The README's line for many connectors, with the interpreter that runs this.
MANY = 'xargs -P 8 -I{} env SHIPYARD_LOG_ID={} "$0" "$1" --connector-id {} < connectors.txt'


class Cost(NamedTuple):
    """CPU and wall clock in seconds, peak memory in MiB."""

    cpu: float
    wall: float
    memory: float


def measure(command: list[str], environment: dict[str, str], folder: str) -> Cost:
    """Run a command and return what it cost, with all that it started."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}: {errors.decode()}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def main() -> None:
    script = [sys.executable, str(SCRIPT)]
    connectors = [f"connector_{number}" for number in range(100)]
    with (
        FakeFivetran(connector_ids=(CONNECTOR_ID, *connectors)) as fivetran,
        tempfile.TemporaryDirectory() as folder,
    ):
        environment = fivetran.environment(dict(os.environ))
        environment["FIVETRAN_API_KEY"] = API_KEY
        environment["FIVETRAN_API_SECRET"] = API_SECRET
        one = {**environment, "FIVETRAN_CONNECTOR_ID": CONNECTOR_ID}
        shortest = [sys.executable, "-c", SHORTEST]
        for command in (script, shortest):  # fill the caches
            measure(command, one, folder)
        pairs = [
            (measure(script, one, folder), measure(shortest, one, folder))
            for _ in range(PAIRS)
        ]
        print(f"Medians of {PAIRS} pairs, Python {sys.version.split()[0]}\n")
        print(f"| {'':<17} | the script | requests.post | ratio |")
        print("|:------------------|-----------:|--------------:|------:|")
        for index, name in enumerate(("CPU, s", "wall clock, s", "peak memory, MiB")):
            ours, theirs = (
                statistics.median(pair[side][index] for pair in pairs)
                for side in (0, 1)
            )
            ratio = statistics.median(pair[0][index] / pair[1][index] for pair in pairs)
            print(f"| {name:<17} | {ours:10.3f} | {theirs:13.3f} | {ratio:5.2f} |")
        print()
        print(f"| {'connectors':<17} | CPU, s | wall clock, s |")
        print("|:------------------|-------:|--------------:|")
        for count in (1, 10, 100):
            lines = "".join(f"{name}\n" for name in connectors[:count])
            Path(folder, "connectors.txt").write_text(lines)
            cost = measure(["sh", "-c", MANY, *script], environment, folder)
            print(f"| {count:<17} | {cost.cpu:6.2f} | {cost.wall:13.2f} |")


if __name__ == "__main__":
    main()
