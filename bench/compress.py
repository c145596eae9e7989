"""INT8 at real size, and the memory that it takes: `python bench/compress.py`.

First a ResNet-50, a BERT-base and a ViT-base (seeded) are exported and compressed; for every flavour that was
tried the table says how much smaller it is and how many times faster than the fastest proven fp32 of the same
race (paired CPU time, one thread), and which one was kept.

Then a ViT-L and a ResNet-50 are built and compressed in a process of their own, whose tree's anonymous memory
is watched: its peak above what the imports took, as a multiple of the fp32 weights.

The exit code is 1 as soon as a target of the issue is missed. `--only resnet-50`, `--skip-memory`,
`--skip-speed` make it shorter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.bench.machine import cpu_flags
from anyport.build import BuildPlan, BuildSettings, build, describe
from anyport.compress.compressing import CompressRequest, compress_graph
from anyport.compress.samples import FunctionSamples, split
from anyport.errors import CompressError
from anyport.graph.capture import capture, quiet
from anyport.graph.convert import convert
from anyport.graph.equality import Equality
from anyport.graph.fastest import TIE, RaceSettings
from anyport.graph.storing import StoreOptions, store
from anyport.recipe import Part
from anyport.runtime import SessionOptions, open_session
from anyport.tensors import Signature, dim, tensor
from anyport.verify import PartSpec, SweepSettings, UserMetric, plan_cases
from compress_models import N_SAMPLES, SIZED, Sized
from machine import this_machine

if TYPE_CHECKING:
    from anyport.compress.compression import Compression

HERE: Final = Path(__file__).resolve().parent
SPEED: Final = ("resnet-50", "bert-base", "vit-base")
MEMORY: Final = {"resnet-50": 8.0, "vit-large": 4.0}  # at most, times the fp32 weights
_READY: Final = "imports are done"
_N_CALIBRATION: Final = 16
_N_JUDGING: Final = 16
_MAX_DROP: Final = 0.02  # of random weights, whose errors no training has made harmless
_POLL_S: Final = 0.01


Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Exported:
    """A network as a graph."""

    path: Path
    signature: Signature


def main() -> int:
    """Print both tables; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="INT8 at real size, and the memory that it takes.")
    parser.add_argument("--only", choices=[*SPEED, "vit-large"], action="append")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--build", choices=list(MEMORY), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.build is not None:
        return build_one(words.build)
    print(this_machine())
    print(f"instruction set that decides: {deciding_isa() or 'none with a target'}\n", flush=True)
    wanted = set(words.only or (*SPEED, *MEMORY))
    missed = []
    for name in SPEED if not words.skip_speed else ():
        missed += speed_of(name) if name in wanted else []
    for name in MEMORY if not words.skip_memory else ():
        missed += memory_of(name) if name in wanted else []
    print("\n".join(f"MISSED  {line}" for line in missed) or "every target is met")
    return int(bool(missed))


# ── size and speed ──────────────────────────────────────────────────────────────────────────────────────
def speed_of(name: str) -> list[str]:
    """Export and compress one network; print what was tried, and return what missed its target."""
    sized, started_s = SIZED[name], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        exported = export(sized, Path(folder))
        try:
            found = compress(exported, sized)
        except CompressError as err:
            print(f"{name}\n{err}\n", flush=True)
            return [f"{name}: {err.what}"]
    print(f"{name}: kept {found.kept}, against fp32 at level {found.baseline}", end="")
    print(f" ({time.monotonic() - started_s:.0f} s)")
    best = max(trial.ratio or 0.0 for trial in found.trials)
    for trial in found.trials:
        smaller = found.size_before_bytes / (trial.size_bytes or 1)
        print(f"  {trial.method:26} {smaller:5.2f}x smaller  {trial.ratio or 0:5.2f}x faster  {trial.status}")
    for kept in sorted({(entry.operator, entry.reason) for entry in found.kept_float}):
        print(f"  stayed float: {kept[0]}: {kept[1]}")
    print(flush=True)
    needed = SIZED[name].faster.get(deciding_isa(), 0.0)
    return [
        *([f"{name}: {found.smaller:.2f}x smaller of {sized.smaller}x"] * (found.smaller < sized.smaller)),
        *([f"{name}: {found.ratio:.2f}x faster of {needed}x"] * (found.ratio < needed)),
        *([f"{name}: kept {found.ratio:.2f}x, tried {best:.2f}x"] * (found.ratio * (1 + TIE) < best)),
    ]


def export(sized: Sized, folder: Path) -> Exported:
    """Write a network as a bundle holds it."""
    signature = Signature(
        tuple(tensor(name, text) for name, text in sized.inputs.items()),
        tuple(tensor(name, text) for name, text in sized.outputs.items()),
        {name: dim(name, text) for name, text in sized.dims.items()},
    )
    part = Part("network", sized.load(), signature)
    with quiet():
        graph = store(convert(capture(part), part), folder / "model.onnx", StoreOptions())
    return Exported(graph.path, signature)


def compress(exported: Exported, sized: Sized) -> Compression:
    """Compress a graph; it is judged by the direction of its answers, for its weights are random."""
    signature = exported.signature
    samples = FunctionSamples("seeded samples", sized.samples, signature, N_SAMPLES)
    calibration, judging = split(samples, _N_CALIBRATION)
    plan = plan_cases(signature.inputs, signature.dims, SweepSettings(max_cases=8))
    part = PartSpec("network", "onnx", signature.inputs, signature.outputs, signature.dims)
    session = open_session(exported.path, SessionOptions(optimization="none"))
    known = [(feeds, session.run(feeds)) for feeds, _ in zip(judging, range(_N_JUDGING), strict=False)]
    session.close()
    metric = UserMetric("cosine:cosine_to_fp32", lambda run: mean_cosine(run, known), max_drop=_MAX_DROP)
    request = CompressRequest(
        "int8",
        Equality(part, plan),
        lambda candidate: metric.compare(1.0, metric.measure(candidate.run)),
        calibration,
        race=RaceSettings(budget_s=60.0),
    )
    output = exported.path.parent / "int8"
    output.mkdir()
    return compress_graph(exported.path, output / "model.onnx", request, print_line)


def mean_cosine(run: Run, known: Sequence[tuple[Arrays, Arrays]]) -> float:
    """Return the mean cosine between a graph's answers and known ones."""
    cosines = []
    for feeds, answers in known:
        for name, got in run(feeds).items():
            mine, exact = got.ravel().astype(np.float64), answers[name].ravel().astype(np.float64)
            cosines.append(mine @ exact / (np.linalg.norm(mine) * np.linalg.norm(exact)))
    return float(np.mean(cosines))


def print_line(_step: str, line: str) -> None:
    """Show progress where it does not get into the table."""
    print(f"    {line}", file=sys.stderr, flush=True)


def deciding_isa() -> str:
    """Return the instruction set that targets are given for."""
    flags = cpu_flags()
    return next((isa for isa in ("avx512_vnni", "avx2") if isa in flags), "")


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────
def build_one(name: str) -> int:
    """Build and compress one network: in the process that is watched."""
    sized = SIZED[name]
    words = {
        "model": {"source": f"compress_models.py:{sized.load.__name__}", "name": name},
        "inputs": dict(sized.inputs),
        "outputs": dict(sized.outputs),
        "dims": dict(sized.dims),
        "build": {"compress": ["int8"], "prefer": "size"},
        "calibrate": {"samples": f"compress_models.py:{sized.samples.__name__}"},
    }
    print(_READY, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = BuildSettings(max_cases=4, allow=frozenset({"inconclusive"}))
        plan = BuildPlan(describe(words, name), HERE, Path(folder) / f"{name}.port", settings)
        try:
            build(plan, lambda step, line: print(f"{step:<9} {line}", flush=True))
        except CompressError as err:  # of the third gate: random weights hold no metric
            print(f"gate      {err.what}", flush=True)
    return 0


def memory_of(name: str) -> list[str]:
    """Watch the build of one network; print its peak in each step, and return what missed its target."""
    command = [sys.executable, str(Path(__file__).resolve()), "--build", name]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        base_bytes, peaks = watched(process, said.fileno())
        said.seek(0)
        report = said.read()
    if process.returncode != 0:
        print(report)
        return [f"{name}: the build ended with {process.returncode}"]
    n_bytes = weights_bytes(name)
    above = {step: (peak_bytes - base_bytes) / n_bytes for step, peak_bytes in peaks.items()}
    times, most = max(above.values()), MEMORY[name]
    print(
        f"{name}: build and compress take {times:.2f}x the {n_bytes / 1e6:.0f} MB of fp32 weights, ", end=""
    )
    print(f"above the {base_bytes / 1e6:.0f} MB of the imports; at most {most:g}x is allowed")
    print("  until the end of: " + ", ".join(f"{step} {ratio:.2f}x" for step, ratio in above.items()), "\n")
    sys.stdout.flush()
    return [f"{name}: {times:.2f}x the weights of {most:g}x"] if times > most else []


def watched(process: subprocess.Popen[bytes], said: int) -> tuple[int, dict[str, int]]:
    """Watch a process to its end; return what the imports took, and the peak of each step of the build."""
    base_bytes, peaks, ended = 0, dict[str, int](), 0
    peak_bytes = 0
    while process.poll() is None:
        now_bytes = tree_bytes(process.pid)
        lines = os.pread(said, 1 << 20, 0).decode(errors="replace").splitlines()
        if _READY not in lines:
            base_bytes = now_bytes
            continue
        peak_bytes = max(peak_bytes, now_bytes)
        steps = [line.split()[0] for line in lines[lines.index(_READY) + 1 :] if line.strip()]
        if len(steps) > ended:  # a step says its line when it ends
            peaks[steps[-1]] = max(peaks.get(steps[-1], 0), peak_bytes)
            print(f"    {lines[-1][:70]}, peak {peak_bytes / 1e6:.0f} MB", file=sys.stderr, flush=True)
            ended, peak_bytes = len(steps), now_bytes
        time.sleep(_POLL_S)
    peaks["end"] = peak_bytes
    return base_bytes, peaks


def tree_bytes(pid: int) -> int:
    """Return the anonymous memory of a process and of those that it started."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except (OSError, ValueError):
        return 0  # it has ended
    found = re.search(r"^RssAnon:\s*(\d+) kB", status, re.MULTILINE)
    return (int(found[1]) << 10 if found else 0) + sum(tree_bytes(child) for child in children)


def weights_bytes(name: str) -> int:
    """Return the size of a network's parameters, without making them."""
    import torch

    from compress_models import hf

    widths = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    with torch.device("meta"):
        model = (
            hf.ViTForImageClassification(hf.ViTConfig(num_labels=1000, **widths))
            if name == "vit-large"
            else hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=1000))
        )
    return sum(one.numel() * 4 for one in model.parameters())


if __name__ == "__main__":
    sys.exit(main())
