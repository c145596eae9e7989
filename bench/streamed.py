"""Export in constant memory: what it takes to export, open and run a model that no memory would hold.

``python bench/streamed.py FOLDER [--case full slice] [--threads 1]``, with some 20 GB free in FOLDER for
``slice``; each step runs in a process of its own, and printed is the most memory that the process and its
children have of their own (no pages of files), and their CPU time.

* ``full``: the 60 layers and 20 B parameters of Qwen-Image's denoiser, bfloat16. The checkpoint has its true
  names, shapes and shards, and is sparse: files with holes, zeros that take no disk. It is exported by
  reference, opened, and runs one step of 180 + 23 tokens.
* ``slice``: two such layers with seeded weights, in bfloat16 (1.4 GB) and in float32 (2.9 GB), exported by
  reference and as copies (as stored, and widened), opened, run, and held against PyTorch: within 8 floors,
  where a floor is PyTorch's own distance between float32 and float64.

What `anyport plan` says of the memory of an export and of what it writes stands beside what was measured, and
must be within 10 % of it.

The exit code is 1 if a figure is beyond its limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from anyport.bundle import TensorFileWriter, dtype_code, read_header, read_tensor
from anyport.verify.tolerance import MAX_ABS_MULTIPLE
from machine import this_machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from anyport.build.streamed_estimate import ExportCost
    from anyport.recipe import Part
    from anyport.tensors import TensorSpec

GIB: Final = 1 << 30
TOKENS: Final = {"batch": 1, "latent_tokens": 180, "text_tokens": 23}
ITEM: Final = {"BF16": 2, "F32": 4}
NAME: Final = "diffusion_pytorch_model"
EVERY_S: Final = 0.02
PLANNED: Final = 0.1  # how far a plan may be from what is measured
COPIES: Final = (("copy", "as-is"), ("copy", "float32"))


class Found(NamedTuple):
    """What a step took.

    Attributes:
        cpu_s: CPU time of the process and its children.
        peak_bytes: The most anonymous memory of all of them together.
        said: What it said, from JSON.
    """

    cpu_s: float
    peak_bytes: int
    said: dict[str, Any]


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────
def answers_of(checkpoint: Path) -> Path:
    """Return where PyTorch's answers are kept: not among the weights."""
    return checkpoint.with_name(f"{checkpoint.name}-answers")


def save(path: Path, array: np.ndarray) -> None:
    """Keep one array."""
    with TensorFileWriter(path, [("array", dtype_code(array.dtype), array.shape)]) as writer:
        writer.write("array", array)


def load(path: Path) -> np.ndarray:
    """Read what `save` kept."""
    return read_tensor(path, read_header(path)["array"])


def make_model(n_layers: int, device: str = "meta") -> nn.Module:
    """Return the published denoiser with so many layers."""
    import diffusers
    import torch

    kind: Any = diffusers.QwenImageTransformer2DModel
    with torch.device(device):
        model: nn.Module = kind(num_layers=n_layers).eval()
    return model


def write_checkpoint(folder: Path, n_layers: int, dtype: str, shard_bytes: float) -> None:
    """Write a checkpoint as diffusers does; of 60 layers a sparse one, else seeded weights."""
    if (folder / "config.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = make_model(n_layers)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    n_bytes = 0
    for name, weight in model.state_dict().items():
        size = weight.numel() * ITEM[dtype]
        if n_bytes and n_bytes + size > shard_bytes:
            shards.append({})
            n_bytes = 0
        shards[-1][name] = tuple(weight.shape)
        n_bytes += size
    names = [f"{NAME}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    rng = np.random.default_rng(0)
    for name, shard in zip(names, shards, strict=True):
        write_sparse(folder / name, shard, dtype) if n_layers > 2 else write_seeded(
            folder / name, shard, dtype, rng
        )
    weight_map = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
    index = {"metadata": {"total_size": sum(p.numel() * ITEM[dtype] for p in model.parameters())}}
    (folder / f"{NAME}.safetensors.index.json").write_text(json.dumps(index | {"weight_map": weight_map}))
    model.save_config(folder)


def write_sparse(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str) -> None:
    """Write a header, and a hole where the weights would be."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in tensors.items():
        size = int(np.prod(shape)) * ITEM[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)


def write_seeded(
    path: Path, tensors: dict[str, tuple[int, ...]], dtype: str, rng: np.random.Generator
) -> None:
    """Write weights that keep the size of what passes through."""
    with TensorFileWriter(path, [(name, dtype, shape) for name, shape in tensors.items()]) as writer:
        for name, shape in tensors.items():
            drawn = rng.standard_normal(shape, dtype=np.float32)
            drawn *= np.float32(1 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.02)
            if "norm" in name and len(shape) == 1:
                drawn += 1
            bits = drawn.view(np.uint32) >> 16
            writer.write(name, bits.astype(np.uint16) if dtype == "BF16" else drawn)


# ── steps: each in a process of its own ─────────────────────────────────────────────────────────────────
def transformer_part(folder: Path) -> tuple[Any, Part]:
    """Return the model of a checkpoint on the meta device, and the part of it that is exported."""
    from anyport.recipe.qwen_edit_parts import transformer

    n_layers = json.loads((folder / "config.json").read_text())["num_layers"]
    model = make_model(n_layers)
    return model, transformer(model)


def export_step(folder: Path, output: Path, words: list[str]) -> dict[str, Any]:
    """Export a checkpoint."""
    import logging

    from anyport.graph.streamed import StreamOptions, StreamSource, stream_export
    from anyport.source.checkpoint import open_checkpoint

    logging.disable(logging.WARNING)
    model, part = transformer_part(folder)
    weights, storage = (cast("Any", word) for word in words)  # `main` made them
    options = StreamOptions(weights=weights, storage=storage)
    output.mkdir(parents=True, exist_ok=True)
    for file in output.iterdir():
        file.unlink()
    graph = stream_export(part, StreamSource(model, open_checkpoint(folder)), output / "model.onnx", options)
    written = sum(file.stat().st_size for file in output.iterdir())
    return {"n_nodes": graph.n_nodes, "written_bytes": written, "stored": graph.stored}


def feeds_of(inputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Return seeded inputs."""
    rng = np.random.default_rng(5)
    feeds = {}
    for spec in inputs:
        shape = [TOKENS.get(axis.text) or int(axis.text) for axis in spec.axes]
        drawn = rng.random(shape) if spec.name == "timestep" else rng.standard_normal(shape)
        feeds[spec.name] = drawn.astype(np.float32)
    return feeds


def run_step(graph: Path, checkpoint: Path | None, n_threads: int) -> dict[str, Any]:
    """Open a graph with its weights mapped, and run one step."""
    from anyport.runtime import SessionOptions, open_session

    started = time.process_time()
    options = SessionOptions(n_threads=n_threads, weights="mapped", weights_folder=checkpoint)
    session = open_session(graph, options)
    opened = time.process_time()
    outputs = session.run(feeds_of(session.inputs))
    ran = time.process_time()
    graph.with_name("velocity.safetensors").unlink(missing_ok=True)
    save(graph.with_name("velocity.safetensors"), outputs["velocity"])
    return {"open_cpu_s": opened - started, "run_cpu_s": ran - opened}


def reference_step(folder: Path, answers: Path, n_threads: int) -> dict[str, Any]:
    """Let PyTorch answer, in float32 and in float64."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(n_threads)
    n_layers = json.loads((folder / "config.json").read_text())["num_layers"]
    model: Any = make_model(n_layers)
    for file in sorted(folder.glob("*.safetensors")):
        weights = {name: weight.float() for name, weight in load_file(file).items()}
        model.load_state_dict(weights, assign=True, strict=False)
        del weights
    from anyport.recipe.qwen_edit_parts import transformer

    part = transformer(model)
    feeds = [torch.from_numpy(array) for array in feeds_of(part.signature.inputs).values()]
    with torch.no_grad():
        answer = part.module(*feeds).numpy()
        exact = part.module.double()(*[feed.double() for feed in feeds]).numpy()
    answers.mkdir()
    save(answers / "velocity.safetensors", answer)
    save(answers / "exact.safetensors", exact)
    return {}


def rooms_of(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return
    for child in children:
        yield from rooms_of(int(child))


def anonymous_bytes(pid: int) -> int:
    """Return what a process and all below it have of their own."""
    total = 0
    for one in rooms_of(pid):
        try:
            text = Path(f"/proc/{one}/status").read_text(encoding="ascii")
        except OSError:
            continue
        found = re.search(r"^RssAnon:\s*(\d+) kB$", text, re.MULTILINE)
        total += int(found[1]) * 1024 if found else 0
    return total


def measured(words: list[str], n_threads: int) -> Found:
    """Run a step of this file in a process of its own."""
    command = [sys.executable, __file__, "--step", *words, "--threads", str(n_threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        peak = 0
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(EVERY_S)
        said = process.stdout.read() if process.stdout else ""
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return Found(used.ru_utime + used.ru_stime, peak, json.loads(said.splitlines()[-1]))


def step(words: list[str], n_threads: int) -> dict[str, Any]:
    """Carry out one step, in the process that was made for it."""
    name, *paths = words
    if name == "export":
        return export_step(Path(paths[0]), Path(paths[1]), paths[2:])
    if name == "run":
        return run_step(Path(paths[0]), Path(paths[1]) if len(paths) > 1 else None, n_threads)
    return reference_step(Path(paths[0]), Path(paths[1]), n_threads)


# ── cases ───────────────────────────────────────────────────────────────────────────────────────────────
def limit(what: str, value: float, most: float, unit: str) -> bool:
    """Print a figure beside its limit, and say whether it holds."""
    holds = value <= most
    print(f"  {what:<46} {value:9.3f} {unit:<4} limit {most:g}{'' if holds else '   BEYOND'}", flush=True)
    return holds


def planned(checkpoint: Path, form: tuple[str, str]) -> ExportCost:
    """Return what a plan says of an export; it reads the headers of the checkpoint."""
    from anyport.build import BuildSettings
    from anyport.build.streamed_estimate import export_cost, streamed_part
    from anyport.build.workload import workload_of
    from anyport.recipe.part import StoredWeights

    model, part = transformer_part(checkpoint)
    part.module.to("meta")  # what it has computed from the configuration
    stored = dataclasses.replace(part, stored=StoredWeights(model, checkpoint))
    load = workload_of(stored, BuildSettings(max_case_bytes=1 << 16), largest_only=True)
    way, storage = (cast("Any", word) for word in form)  # of COPIES, or a reference
    return export_cost(streamed_part(stored, load), way, storage)


def near(what: str, said: float, found: float, unit: str) -> bool:
    """Print what was planned beside what was measured, and say whether it is near enough."""
    ratio = said / found
    holds = abs(ratio - 1) <= PLANNED
    figures = f"planned {said:.3f}, measured {found:.3f} {unit}"
    print(
        f"  {what:<22} {figures}: {ratio:.3f}, limit 1 ± {PLANNED:g}{'' if holds else '   BEYOND'}",
        flush=True,
    )
    return holds


def as_planned(checkpoint: Path, form: tuple[str, str], export: Found) -> list[bool]:
    """Hold a plan against an export."""
    said, written = planned(checkpoint, form), export.said["written_bytes"]
    return [
        near("export, peak", said.memory_bytes / GIB, export.peak_bytes / GIB, "GiB"),
        near("export, written", said.written_bytes / 1e6, written / 1e6, "MB"),
    ]


def full_case(folder: Path, n_threads: int) -> bool:
    """Export, open and run all 60 layers."""
    checkpoint, output = folder / "full", folder / "full-reference"
    write_checkpoint(checkpoint, 60, "BF16", 4.99e9)
    files = list(checkpoint.glob("*.safetensors"))
    apparent = sum(file.stat().st_size for file in files) / 1e9
    on_disk = sum(file.stat().st_blocks * 512 for file in files) / 1e9
    print(f"full: {len(files)} shards, {apparent:.2f} GB, {on_disk:.4f} GB of them on the disk")
    export = measured(["export", str(checkpoint), str(output), "reference", "as-is"], n_threads)
    print(f"  export: {export.said['n_nodes']} nodes, {export.cpu_s:.0f} CPU s")
    run = measured(["run", str(output / "model.onnx"), str(checkpoint)], n_threads)
    print(f"  run: {run.said['run_cpu_s']:.0f} CPU s for one step of 180 + 23 tokens")
    held = [
        *as_planned(checkpoint, ("reference", "as-is"), export),
        limit("export, peak", export.peak_bytes / GIB, 1.2, "GiB"),
        limit("export, written", export.said["written_bytes"] / 1e6, 100, "MB"),
        limit("open", run.said["open_cpu_s"], 10, "s"),
        limit("open and run, peak", run.peak_bytes / GIB, 1.5, "GiB"),
    ]
    return all(held)


def slice_case(folder: Path, n_threads: int) -> bool:
    """Export two layers in every way, and hold them against PyTorch."""
    held = []
    for dtype in ITEM:
        checkpoint = folder / f"slice-{dtype.lower()}"
        write_checkpoint(checkpoint, 2, dtype, 1e9)
        answers = answers_of(checkpoint)
        if not answers.is_dir():
            measured(["reference", str(checkpoint), str(answers)], n_threads)
        for weights, storage in (("reference", "as-is"), *COPIES):
            if (dtype, storage) != ("F32", "float32"):  # as it is anyway
                held.append(slice_form(checkpoint, (weights, storage), n_threads))
    return all(held)


def slice_form(checkpoint: Path, form: tuple[str, str], n_threads: int) -> bool:
    """Export two layers in one way."""
    output = checkpoint.with_name(f"{checkpoint.name}-{'-'.join(form)}")
    export = measured(["export", str(checkpoint), str(output), *form], n_threads)
    more = [str(checkpoint)] if form[0] == "reference" else []
    run = measured(["run", str(output / "model.onnx"), *more], n_threads)
    answer, exact = (load(answers_of(checkpoint) / f"{name}.safetensors") for name in ("velocity", "exact"))
    floor = np.abs(answer - exact).max()
    error = np.abs(load(output / "velocity.safetensors") - exact).max()
    seconds = f"{export.cpu_s:.0f} CPU s to export, {run.said['run_cpu_s']:.2f} to run"
    print(f"{output.name}: {seconds}, {export.said['written_bytes'] / 1e6:.1f} MB written")
    held = [
        *as_planned(checkpoint, form, export),
        limit("export, peak", export.peak_bytes / GIB, 1.0, "GiB"),
        limit("error, in floors of PyTorch's float32", error / floor, MAX_ABS_MULTIPLE, ""),
        limit("open and run, peak", run.peak_bytes / GIB, 0.5, "GiB"),
    ]
    for file in output.iterdir():
        file.unlink()
    return all(held)


def main() -> int:
    """Print the figures of the cases, or carry out one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--case", nargs="+", choices=("full", "slice"), default=("full", "slice"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", nargs="+")
    words = parser.parse_args()
    if words.step:
        print(json.dumps(step(words.step, words.threads)))
        return 0
    print(this_machine())
    cases = {"full": full_case, "slice": slice_case}
    found = [
        cases[case](words.folder, words.threads) for case in words.case
    ]  # all of them, also after a bad one
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
