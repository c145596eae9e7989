"""Kill a build of streamed weights at chosen moments, and build again: a program for `test_resuming.py`.

One process loads torch and builds once somewhere else. Then it forks for each moment: a child is killed
there, the parent looks at what is left, and another child builds to the end.

Usage: stop_streamed.py every|again|PATTERN[,PATTERN…] FOLDER [STRIDE]
A pattern is looked for in ``EVENT PATH`` of whatever a build does to the disk, and in ``told STEP TEXT``.
``every`` kills at each of these things, or each so manieth; ``again`` a build that goes on after one that
was killed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anyport.build import build, steps
from anyport.bundle import open_bundle
from anyport.bundle.workshop import leftovers, n_done
from tests.build.streaming import Told, model_in, plan_in, write_checkpoint

torch.set_num_threads(1)  # a forked child has no thread but its own
WHAT, FOLDER, STRIDE = sys.argv[1], Path(sys.argv[2]), int([*sys.argv, "1"][3])
PLACE = FOLDER / "place"
OUTPUT = PLACE / "m.port"
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
MAX_STOPS = 1000


@dataclass(slots=True)
class Killer:
    """Counts what a build does, and kills the process at one of these things.

    Attributes:
        pattern: Of it; absent: any.
        number: How manieth of those that match, from 1.
        count: How many there were.
    """

    pattern: re.Pattern[str]
    number: int
    count: int = 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not args or str(PLACE) not in str(args[0]):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if event == "open" or event in CHANGES:
            self.see(f"{event} {str(args[0]).removeprefix(str(PLACE))}")

    def see(self, text: str) -> None:
        """Count one thing."""
        self.count += self.pattern.search(text) is not None
        if self.count == self.number:
            os.kill(os.getpid(), signal.SIGKILL)


def _build(killer: Killer | None, output: Path) -> None:
    """Build in a child process, end it with 0, and leave beside the place what was told."""
    told = Told()

    def progress(step: str, text: str) -> None:
        told(step, text)
        if killer is not None:
            killer.see(f"told {step} {text}")

    if killer is not None:
        sys.addaudithook(killer)
    try:
        build(plan_in(output), progress)
    except BaseException:  # noqa: BLE001  (the edge of the process)
        traceback.print_exc()
        os._exit(3)
    (FOLDER / "told.json").write_text(json.dumps([told.parts("resume"), told.parts("export")]))
    os._exit(0)


def _run(killer: Killer | None) -> int:
    child = os.fork()
    if child == 0:
        _build(killer, PLACE)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _stopped_at(pattern: str, number: int) -> dict[str, Any]:
    """Kill a build, say what is left, and build again."""
    if PLACE.exists():
        shutil.rmtree(PLACE)
    PLACE.mkdir()
    if WHAT == "again":
        _run(Killer(re.compile("told export second"), 1))
    killed = _run(Killer(re.compile(pattern), number))
    left = leftovers(OUTPUT)
    found: dict[str, Any] = {"pattern": pattern, "number": number, "killed": killed}
    found |= {"output": OUTPUT.exists(), "n_done": max(map(n_done, left), default=0)}
    if OUTPUT.exists():
        with open_bundle(OUTPUT) as bundle:
            bundle.check()
        return found
    found["again"] = _run(None)
    resumed, exported = json.loads((FOLDER / "told.json").read_text())
    with open_bundle(OUTPUT) as bundle:
        bundle.check()
    others = sorted(path.name for path in PLACE.iterdir())
    seal = (OUTPUT / "SEAL").read_text()
    return found | {"resumed": resumed, "exported": exported, "others": others, "seal": seal}


def main() -> None:
    """Build, and be killed."""
    steps.find_model = lambda _: model_in(FOLDER / "checkpoint")
    write_checkpoint(FOLDER / "checkpoint")
    (FOLDER / "unharmed").mkdir()
    build(plan_in(FOLDER / "unharmed"), Told())
    stops = []
    if WHAT in {"again", "every"}:
        for number in range(1, MAX_STOPS, STRIDE):
            stops.append(_stopped_at("", number))
            if stops[-1]["killed"] == 0:
                break
    else:
        stops = [_stopped_at(pattern, 1) for pattern in WHAT.split(",")]
    seal = (FOLDER / "unharmed" / "m.port" / "SEAL").read_text()
    print(json.dumps({"seal": seal, "stops": stops}))  # noqa: T201  (its answer)


main()
