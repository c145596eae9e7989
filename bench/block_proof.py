"""Proof block by block: what it takes to verify a model that no memory would hold, and what it finds.

``python bench/block_proof.py FOLDER [--layers 6] [--cases 10] [--threads 1]``, with 5.5 GB free in FOLDER:
as many layers of Qwen-Image's denoiser in their published width (3072), seeded, bfloat16, a shard for each
block. They are exported by reference and proven block by block; then again with one number of block 4 changed
in the files that the graph reads, and with the place of one weight of block 4 wrong by one number. Each step
runs in a process of its own; printed is the most memory of its own that it had (no pages of files), imports
included.

The exit code is 1 if the proof fails, needs more than two blocks' weights, or does not name block 4.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from machine import this_machine
from streamed import GIB, NAME, anonymous_bytes, limit, make_model, transformer_part, write_seeded

BLOCK: Final = "transformer.transformer_blocks.4"
CHANGED: Final = "transformer_blocks.4.img_mlp.net.0.proj.weight"
MOVED: Final = "transformer_blocks.4.attn.to_q.weight"


def write_checkpoint(folder: Path, n_layers: int) -> None:
    """Write seeded weights in bfloat16, one at a time: a shard for each block, and one for the others."""
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    model: Any = make_model(n_layers)
    for name, weight in model.state_dict().items():
        block = name.split(".")[1] if name.startswith("transformer_blocks.") else "rest"
        shards.setdefault(f"{NAME}-{block}.safetensors", {})[name] = tuple(weight.shape)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for file, tensors in shards.items():
        write_seeded(folder / file, tensors, "BF16", rng)
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    index = json.dumps({"weight_map": weight_map})
    (folder / f"{NAME}.safetensors.index.json").write_text(index, encoding="utf-8")
    model.save_config(folder)


def export_step(checkpoint: Path, output: Path) -> dict[str, Any]:
    """Export by reference, with the module map beside the graph."""
    from anyport.graph.streamed import StreamOptions, StreamSource, store_streamed, translate_part
    from anyport.source import open_checkpoint

    model, part = transformer_part(checkpoint)
    output.mkdir(parents=True)
    translated = translate_part(part, StreamSource(model, open_checkpoint(checkpoint)))
    (output / "modules.json").write_bytes(translated.converted.modules.encode())
    store_streamed(translated, output / "model.onnx", StreamOptions(weights="reference"))
    return {}


def prove_step(checkpoint: Path, graph: Path, folder: Path, n_cases: int, n_threads: int) -> dict[str, Any]:
    """Prove a graph whose weights are read from ``folder``."""
    import dataclasses

    import torch

    from anyport.build.block_proving import MadeGraph, prove_by_blocks, streamed_subject
    from anyport.graph.block_run import BlockSettings
    from anyport.graph.modulemap import ModuleMap
    from anyport.graph.streamed import StreamSource
    from anyport.source import open_checkpoint
    from anyport.verify import CasePlan, PartSpec, SweepSettings, plan_cases

    torch.set_num_threads(n_threads)
    model, part = transformer_part(checkpoint)
    signature = part.signature
    modules = ModuleMap.decode(graph.with_name("modules.json").read_bytes())
    source = StreamSource(model, open_checkpoint(checkpoint))
    subject = streamed_subject(part, source, MadeGraph(graph, modules))
    subject = dataclasses.replace(subject, folder=folder)
    sweep = SweepSettings(max_cases=10, max_case_bytes=2 << 20)
    plan = plan_cases(signature.inputs, signature.dims, sweep, (), signature.outputs)
    spec = PartSpec(part.name, "fp32", signature.inputs, signature.outputs, signature.dims)
    started = time.perf_counter()
    settings = BlockSettings(
        n_threads=n_threads, progress=lambda text: print(text, file=sys.stderr, flush=True)
    )
    verdict = prove_by_blocks(subject, CasePlan(plan.cases[:n_cases], ()), spec, settings)
    return {
        "values": verdict.leg("values").to_json(),
        "weights": verdict.leg("weights").to_json(),
        "summary": verdict.summary(),
        "origin": verdict.origin,
        "wall_s": time.perf_counter() - started,
    }


def measured(words: list[str]) -> tuple[dict[str, Any], int, float]:
    """Run a step of this file in a process of its own; return what it says, its memory and its CPU time."""
    command = [sys.executable, __file__, "--step", *words]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.01)
        said = process.stdout.read() if process.stdout else ""
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return json.loads(said.splitlines()[-1]), peak, used.ru_utime + used.ru_stime


def changed_files(checkpoint: Path, folder: Path) -> None:
    """Link a checkpoint's files, but for one, in which one number is another."""
    from anyport.source import open_checkpoint

    folder.mkdir()
    weight = open_checkpoint(checkpoint).tensors[CHANGED]
    for file in checkpoint.glob("*.safetensors"):
        if file != weight.file:
            (folder / file.name).hardlink_to(file)
    copy = folder / weight.file.name
    shutil.copyfile(weight.file, copy)
    with copy.open("r+b") as opened:
        opened.seek(weight.offset + weight.n_bytes // 2 + 1)  # the upper byte: sign and most of the exponent
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 0x80]))


def moved_graph(graph: Path, output: Path) -> Path:
    """Write a graph that reads one weight from one number further on."""
    output.mkdir()
    model = onnx.load(str(graph), load_external_data=False)
    tensor = next(one for one in model.graph.initializer if one.name == MOVED)
    entry = next(one for one in tensor.external_data if one.key == "offset")
    entry.value = str(int(entry.value) + 2)
    (output / "model.onnx").write_bytes(model.SerializeToString())
    shutil.copyfile(graph.with_name("modules.json"), output / "modules.json")
    return output / "model.onnx"


def shown(what: str, found: tuple[dict[str, Any], int, float]) -> dict[str, Any]:
    """Print what a proof says and takes."""
    said, peak, cpu_s = found
    print(f"{what}: {cpu_s:.0f} CPU s, {said['wall_s']:.0f} s, {peak / GIB:.2f} GiB\n  {said['summary']}")
    for line in (*said["values"]["details"][-1:], said["origin"], f"weights: {said['weights']['line']}"):
        print(f"  {line}")
    return said


def run(folder: Path, n_layers: int, how: list[str]) -> bool:
    """Prove the graph as it is, and with each fault."""
    checkpoint, output = folder / "checkpoint", folder / "export"
    write_checkpoint(checkpoint, n_layers)
    model: Any = make_model(n_layers)
    n_parameters = sum(one.numel() for one in model.transformer_blocks[0].parameters())
    size = f"{n_parameters / 1e6:.0f} million parameters, {2 * n_parameters / GIB:.2f} GiB as stored"
    print(f"{n_layers} layers of {size}", flush=True)
    _, peak, cpu_s = measured(["export", str(checkpoint), str(output)])
    print(f"export: {cpu_s:.0f} CPU s, {peak / GIB:.2f} GiB")
    graph = output / "model.onnx"
    found = measured(["prove", str(checkpoint), str(graph), str(checkpoint), *how])
    good = shown("proof", found)
    # two blocks as they are stored, in two bytes
    held = [
        limit("proof, peak; limit: two blocks as stored", found[1] / GIB, 4 * n_parameters / GIB, "GiB"),
        "FAIL" not in good["summary"],
    ]
    changed_files(checkpoint, folder / "changed")
    bad = shown(
        "one number changed", measured(["prove", str(checkpoint), str(graph), str(folder / "changed"), *how])
    )
    held.append(bad["origin"].startswith(f"differs in block '{BLOCK}';"))
    moved = moved_graph(graph, folder / "moved")
    bad = shown("one weight moved", measured(["prove", str(checkpoint), str(moved), str(checkpoint), *how]))
    held.append(bad["origin"].startswith(f"differs in block '{BLOCK}';"))
    return all(held)


def step(words: list[str]) -> dict[str, Any]:
    """Carry out one step, in the process that was made for it."""
    name, *rest = words
    if name == "export":
        return export_step(Path(rest[0]), Path(rest[1]))
    return prove_step(Path(rest[0]), Path(rest[1]), Path(rest[2]), int(rest[3]), int(rest[4]))


def main() -> int:
    """Print the figures, or carry out one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", nargs="+")
    words = parser.parse_args()
    if words.step:
        print(json.dumps(step(words.step)))
        return 0
    print(this_machine())
    folder = words.folder / "block-proof"
    try:
        return 0 if run(folder, words.layers, [str(words.cases), str(words.threads)]) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
