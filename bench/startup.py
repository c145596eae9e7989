"""How long `anyport --help` and the tasks take above the bare interpreter: `python bench/startup.py`.

Both programs run in turn, in pairs, in random order; the figure is the median of the differences within a
pair, in CPU time (user and system) of the child process, which a busy machine disturbs less than wall clock.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
from typing import Final

from machine import this_machine

LIMITS_MS: Final = {"help": 150, "task": 300}
_HELP: Final = "import sys; sys.argv = ['anyport', '--help']; from anyport.cli import main; sys.exit(main())"
PROGRAMS: Final = {
    "bare": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-c", _HELP],
    "task": [sys.executable, "-c", "import anyport.task.answer, anyport.task.caption, anyport.task.match"],
}


def cpu_time_ms(command: list[str]) -> float:
    """Run a command to its end and return the CPU time that it took, in milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def measure(n_pairs: int) -> list[dict[str, float]]:
    """Return the CPU time in milliseconds of each program, once per pair."""
    for command in PROGRAMS.values():  # the first run writes .pyc files and fills the page cache
        cpu_time_ms(command)
    pairs = []
    for _ in range(n_pairs):
        order = random.sample(sorted(PROGRAMS), len(PROGRAMS))
        pairs.append({name: cpu_time_ms(PROGRAMS[name]) for name in order})
    return pairs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Start-up above the bare interpreter.")
    parser.add_argument("--pairs", type=int, default=21)
    pairs = measure(parser.parse_args().pairs)
    print(this_machine())
    print(f"bare interpreter    {statistics.median(pair['bare'] for pair in pairs):6.1f} ms CPU")
    for name, limit_ms in LIMITS_MS.items():
        lower, middle, upper = statistics.quantiles([pair[name] - pair["bare"] for pair in pairs], n=4)
        print(
            f"{name} above the bare {middle:6.1f} ms, quartiles {lower:.1f} and {upper:.1f}, "
            f"{len(pairs)} pairs; allowed {limit_ms} ms"
        )


if __name__ == "__main__":
    main()
