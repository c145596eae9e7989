"""What `anyport plan` says against what a build then needs: `python bench/plan.py [NAME…] [--all]`.

Each model is planned, then built in a process of its own, one thread each. The script ends with exit code 1
where an estimate is off by more than a factor of 2 in memory or 3 in time, or by more than 15 % in disk.
Times are CPU times, with the runtime's threads added up: what a machine with nothing else to do would take
on one core. Of builds whose weights are streamed the memory of their own is measured, without pages of files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from machine import this_machine
from streamed import anonymous_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_ROOT: Final = Path(__file__).resolve().parents[1]
_ANYPORT: Final = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'anyport'; from anyport.cli import main; sys.exit(main())",
)
_TICK_S: Final = 0.1
ALLOWED: Final = {"disk": 1.15, "memory": 2.0, "time": 3.0}


def seeded_blip(kind: str, size: str, *words: str) -> Callable[[Path], Path]:
    """Return what writes a seeded BLIP checkpoint into a folder."""

    def write(folder: Path) -> Path:
        script = _ROOT / "examples" / "blip" / "make_seeded.py"
        command = [sys.executable, str(script), str(folder), "--kind", kind, "--size", size, *words]
        subprocess.run(command, check=True, capture_output=True)
        return folder / f"model_{kind}.pth" if words else folder

    return write


def seeded_resnet(folder: Path) -> Path:
    """Write a ResNet-18 with drawn weights."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(folder)
    return folder


def seeded_pipeline(folder: Path) -> Path:
    """Write a tiny Qwen-Image-Edit."""
    script = _ROOT / "examples" / "qwen_image_edit" / "make_seeded.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


MODELS: Final[Mapping[str, Callable[[Path], Path]]] = {
    "blip-answer-small.pth": seeded_blip("answer", "small", "--original"),
    "blip-caption-base": seeded_blip("caption", "base"),
    "blip-caption-tiny": seeded_blip("caption", "tiny"),
    "blip-match-tiny": seeded_blip("match", "tiny"),
    "digits": lambda _folder: _ROOT / "examples" / "digits",
    "edit-copy-tiny": seeded_pipeline,
    "edit-reference-tiny": seeded_pipeline,
    "resnet-18": seeded_resnet,
}
_LONG: Final = {"blip-caption-base"}
_MOSTLY_PROOF: Final = {"edit-copy-tiny", "edit-reference-tiny"}  # whose disk says nothing of real weights
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {  # of the command line, beside the source
    "edit-copy-tiny": ("--weights", "copy"),
    "edit-reference-tiny": ("--weights", "reference"),
}


@dataclass(frozen=True, slots=True)
class Needed:
    """What a build needed, or was said to need."""

    disk: float
    memory: float
    time: float


def environment() -> dict[str, str]:
    """One thread, so that the measured speed is that of all steps."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT / "src")}


def planned(source: Path, output: Path, words: Sequence[str]) -> Needed:
    """Ask `anyport plan`."""
    command = [*_ANYPORT, "plan", str(source), "-o", str(output), "--json", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    record: dict[str, Any] = json.loads(done.stdout)
    return Needed(record["disk_bytes"], record["memory_bytes"], record["time_s"])


def built(source: Path, output: Path, words: Sequence[str]) -> Needed:
    """Build, and watch the process and the folder of its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*_ANYPORT, "build", str(source), "-o", str(output), "--allow", "inconclusive", *words]
    memory_of = anonymous_bytes if "--weights" in words else peak_memory
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    disk = memory = 0
    while process.poll() is None:
        memory = max(memory, memory_of(process.pid))
        disk = max(disk, sum(sizes(output.parent)))
        time.sleep(_TICK_S)
    if process.returncode:
        raise SystemExit(f"the build of {source.name} ends with {process.returncode}")
    disk = max(disk, sum(sizes(output.parent)))  # the bundle, and its report beside it
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Needed(disk, memory, cpu_s)


def peak_memory(pid: int) -> int:
    """Return the most memory that a process has had, in bytes; 0 when it is gone."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def sizes(folder: Path) -> Iterator[int]:
    """Yield the sizes of all files but the report, which is not part of the bundle."""
    for place, _, names in os.walk(folder):  # which passes over a folder that is moved meanwhile
        for name in names:
            with suppress(OSError):  # moved while it is looked at
                yield 0 if name.endswith(".report.json") else (Path(place) / name).stat().st_size


def compare(name: str, said: Needed, needed: Needed) -> bool:
    """Print one line for each thing; say whether all are near enough."""
    is_good = True
    for thing, scale, unit in (("disk", 1e6, "MB"), ("memory", 1e9, "GB"), ("time", 1.0, "s")):
        one, other = getattr(said, thing) / scale, getattr(needed, thing) / scale
        ratio = one / other
        is_judged = thing != "disk" or name not in _MOSTLY_PROOF
        is_near = not is_judged or 1 / ALLOWED[thing] <= ratio <= ALLOWED[thing]
        is_good &= is_near
        verdict = "" if is_near else f"   OFF BY MORE THAN {ALLOWED[thing]:g}"
        line = f"said {one:8.2f} {unit:<2}  needed {other:8.2f} {unit:<2}  {ratio:5.2f}"
        print(f"{name:<22} {thing:<7} {line}{verdict}", flush=True)
    return is_good


def main() -> None:
    """Plan, build, compare."""
    parser = argparse.ArgumentParser(description="What a plan says against what a build needs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(MODELS))
    parser.add_argument("--all", action="store_true", help="the long ones, too")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(MODELS):
        parser.error(f"{', '.join(sorted(unknown))}: known are {', '.join(MODELS)}")
    names = chosen.names or [name for name in MODELS if chosen.all or name not in _LONG]
    print(this_machine())
    is_good = True
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            source, place = MODELS[name](Path(folder) / "source"), Path(folder) / "made"
            place.mkdir()
            output, words = place / "model.port", _WORDS.get(name, ())
            said = planned(source, output, words)
            is_good &= compare(name, said, built(source, output, words))
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
