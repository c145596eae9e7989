"""`make test`: lint, types and tests; the exit code is 0 only if all are fine.

Words are handed to pytest: ``-m slow`` (`make test-slow`) runs the tests that `make test` leaves out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import environment
from environment import DEV, ROOT

if TYPE_CHECKING:
    from pathlib import Path


def main() -> None:
    """Run the checks; the tests come last, so that pytest's closing line ends the output."""
    environment.ensure(DEV)
    n_jobs = os.environ.get("JOBS", "2")
    checks = {
        "lint": _ran("ruff", "check", "."),
        "format": _ran("ruff", "format", "--check", "."),
        "types": _ran("mypy"),
        **{f"types of {folder.name}": _scripts_fit(folder) for folder in _script_folders()},
        "tests": _ran("pytest", "-n", n_jobs, "--dist", "loadfile", "-m", "not slow", *sys.argv[1:]),
    }
    failed = [name for name, is_fine in checks.items() if not is_fine]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _script_folders() -> list[Path]:
    """Return the folders whose files import each other as scripts do; every example is one of its own."""
    examples = [path for path in sorted((ROOT / "examples").iterdir()) if any(path.glob("*.py"))]
    return [ROOT / "bench", ROOT / "scripts", *examples]


def _scripts_fit(folder: Path) -> bool:
    files = [str(path.relative_to(ROOT)) for path in sorted(folder.glob("*.py"))]
    return _ran("mypy", "--no-explicit-package-bases", "--no-namespace-packages", *files)


def _ran(program: str, *words: str) -> bool:
    print(f"$ {program} {' '.join(words)}", flush=True)
    # one thread per test process: more would only fight over the cores
    own = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [DEV.program(program), *words], stdin=subprocess.DEVNULL, check=False, cwd=ROOT, env=os.environ | own
    )
    return done.returncode == 0


if __name__ == "__main__":
    main()
