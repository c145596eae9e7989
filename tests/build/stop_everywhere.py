"""Stop a build at every single thing it does to the disk: a program for `test_interrupted.py`.

One process loads torch and builds once somewhere else. Then it forks for each write of a build: the child
builds and is stopped at that write, the parent looks at what is left. At last the parent builds, too.

Usage: stop_everywhere.py kill|interrupt|full FOLDER
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anyport.build import build
from anyport.bundle import open_bundle
from anyport.errors import AnyportError
from tests.build.building import QUICK, plan_for, silent

torch.set_num_threads(1)  # a forked child has no thread but its own
HOW, FOLDER = sys.argv[1], Path(sys.argv[2])
OUTPUT = FOLDER / "m.port"
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
MAX_STOPS = 400
SETTINGS = replace(QUICK, max_cases=4)


class Stopper:
    """An audit hook that counts what touches the folder, and stops the process at one of them."""

    def __init__(self, stop_at: int) -> None:
        self.count = 0
        self.stop_at = stop_at

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not _touches(event, args):
            return
        self.count += 1
        if self.count != self.stop_at:
            return
        if HOW == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if HOW == "interrupt":
            raise KeyboardInterrupt
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))

    @property
    def is_past(self) -> bool:
        """Whether the stop was reached."""
        return self.count >= self.stop_at


def _touches(event: str, args: tuple[Any, ...]) -> bool:
    if not args or str(FOLDER) not in str(args[0]):
        return False
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES


def _look() -> dict[str, Any]:
    """Say what is left: no output, a whole one, or something else."""
    state = "absent"
    if os.path.lexists(OUTPUT):
        with open_bundle(OUTPUT) as bundle:
            bundle.check()
        state = "whole"
    others = sorted(p.name for p in FOLDER.iterdir() if p != OUTPUT and not p.name.startswith("."))
    return {"output": state, "others": others}


def _build_until(stop_at: int) -> None:
    """Build in a child process and end it: 0 unharmed, 3 with an error, 4 past the stop without one."""
    stopper = Stopper(stop_at)
    sys.addaudithook(stopper)
    try:
        build(plan_for("scores_and_choice", OUTPUT, SETTINGS), silent)
    except (AnyportError, KeyboardInterrupt, OSError) as err:
        sys.stderr.write(f"{type(err).__name__}: {err}\n")
        sys.stderr.flush()
        os._exit(3)
    os._exit(4 if stopper.is_past else 0)


def _try_all_stops() -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    for number in range(1, MAX_STOPS):
        child = os.fork()
        if child == 0:
            _build_until(number)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seen.append({"stop": number, "status": status} | _look())
        if status == 0:
            break
        if OUTPUT.exists():
            shutil.rmtree(OUTPUT)
    return seen


def main() -> None:
    """Build, and be stopped."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as elsewhere:
        build(plan_for("scores_and_choice", Path(elsewhere) / "m.port", SETTINGS), silent)
    seen = _try_all_stops()
    shutil.rmtree(OUTPUT)
    build(plan_for("scores_and_choice", OUTPUT, SETTINGS), silent)
    hidden = sorted(p.name for p in FOLDER.iterdir() if p.name.startswith("."))
    print(json.dumps({"stops": seen, "last": _look(), "hidden": hidden}))  # noqa: T201  (its answer)


main()
