"""What a memory limit costs: one task under several limits, CPU time and peak memory.

``python bench/memory_policy.py BUNDLE INPUT… [--limits 2GB 1200MB 400MB] [--rounds 3] [TASK OPTIONS]``:
`anyport run` in a process of its own for each limit and round, in turn, on one thread; the least CPU time of
the rounds above that of `anyport run --help`, and the largest peak that it reports. The first row has a limit
that never binds. The exit code is 1 if the answers differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any, Final

from machine import this_machine

NO_LIMIT: Final = "1000GB"


def run(words: list[str]) -> tuple[float, str]:
    """Run anyport, and return its CPU time and what it prints."""
    command = [sys.executable, "-m", "anyport", "run", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        text = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return used.ru_utime + used.ru_stime, text


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--limits", nargs="+", default=["2GB", "1200MB", "400MB"])
    parser.add_argument("--rounds", type=int, default=3)
    words, options = parser.parse_known_args()
    given = [
        words.bundle,
        *words.inputs,
        *[one for one in options if one != "--"],
        "--threads",
        "1",
        "--json",
    ]
    print(this_machine())
    idle_s = min(run(["--help"])[0] for _ in range(words.rounds))
    limits = [NO_LIMIT, *words.limits]
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {limit: [] for limit in limits}
    for _ in range(words.rounds):
        for limit in limits:
            cpu_s, text = run([*given, "--max-memory", limit])
            found[limit].append((cpu_s - idle_s, json.loads(text)))
    answers = set()
    for limit, rows in found.items():
        memory = [record.pop("memory") for _, record in rows]
        answers |= {json.dumps(record) for _, record in rows}
        ways = ", ".join(f"{part} {how}" for part, how in memory[-1]["parts"].items())
        peak_mb = max(one["peak_bytes"] for one in memory) / 1e6
        print(f"  {limit:>7}   {min(cpu_s for cpu_s, _ in rows):6.1f} s   {peak_mb:6.0f} MB   {ways}")
    return int(len(answers) > 1)


if __name__ == "__main__":
    sys.exit(main())
