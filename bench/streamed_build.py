"""What a whole build takes whose weights are never loaded: `python bench/streamed_build.py FOLDER`.

A Qwen-Image-Edit of the published widths and the published autoencoder, with few layers and seeded weights in
bfloat16 (3 GB; some 7 GB free in FOLDER are needed). It is built with ``--weights reference`` and with
``--weights copy``, each in a process of its own: exported, proven against PyTorch block by block and as a
whole, sealed, and verified again. Printed is the most memory that the process has of its own (no pages of
files), its CPU time, and what was written. The exit code is 1 if a figure is beyond its limit.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final

import numpy as np
import torch

from anyport.bundle import TensorFileWriter
from machine import this_machine
from streamed import EVERY_S, GIB, anonymous_bytes, limit, measured

_ROOT: Final = Path(__file__).resolve().parents[1]
_CLI: Final = "import sys; sys.argv[0] = 'anyport'; from anyport.cli import main; sys.exit(main())"
_MOST_GIB: Final = {"reference": 3.5, "copy": 3.5}  # the autoencoder is loaded, and widest
_FEW: Final = ("--max-cases", "8", "--allow", "unproven-task")


def script() -> Any:  # noqa: ANN401 -- a module
    """Return examples/qwen_image_edit/make_seeded.py as a module."""
    path = _ROOT / "examples" / "qwen_image_edit" / "make_seeded.py"
    spec = importlib.util.spec_from_file_location("make_seeded", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_folder(folder: Path) -> None:
    """Write the pipeline, one weight at a time."""
    if (folder / "model_index.json").is_file():
        return
    made = script()
    published = made.PUBLISHED
    text = (*published.text[:2], 2, *published.text[3:])
    vision = (*published.vision[:2], 4, published.vision[3])
    size = made.Size(text, vision, (1, 3), (2, 24), published.rope, published.vae, n_tokens=8192)
    made.write_outline(folder, size)
    rng = np.random.default_rng(0)
    for component in ("text_encoder", "transformer"):
        index = next((folder / component).glob("*.index.json"))
        with torch.device("meta"):
            shapes = made.COMPONENTS[component](size).state_dict()
        places = json.loads(index.read_text())["weight_map"]
        for shard in sorted(set(places.values())):
            write_shard(
                folder / component / shard, {n: w for n, w in shapes.items() if places[n] == shard}, rng
            )
    vae = made.varied(made.vae(size), 2)
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")


def write_shard(path: Path, weights: dict[str, torch.Tensor], rng: np.random.Generator) -> None:
    """Write seeded bfloat16 weights with which answers vary."""
    made = script()
    with TensorFileWriter(
        path, [(name, "BF16", tuple(one.shape)) for name, one in weights.items()]
    ) as writer:
        for name, one in weights.items():
            drawn = rng.standard_normal(tuple(one.shape), dtype=np.float32)
            if one.ndim > 1 and "embed_tokens" not in name:
                drawn *= np.float32(made.gain(name) / made.fan_in(one) ** 0.5)
            elif one.ndim == 1:
                drawn = drawn * np.float32(0.05) + np.float32("bias" not in name)
            writer.write(name, (drawn.view(np.uint32) >> 16).astype(np.uint16))


class Watched:
    """A command that runs: each line that it prints is shown with the most memory of its own since the last.

    Attributes:
        cpu_s: CPU time of the process.
        peak_bytes: The most memory of its own.
    """

    def __init__(self, *words: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", _CLI, *words]
        self.peak_bytes, self._since = 0, 0
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            reader = Thread(target=self._read, args=(process.stdout,))
            reader.start()
            while True:
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                self._since = max(self._since, anonymous_bytes(process.pid))
                self.peak_bytes = max(self.peak_bytes, self._since)
                time.sleep(EVERY_S)
            reader.join()
            process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = used.ru_utime + used.ru_stime
        if process.returncode:
            raise SystemExit(f"anyport {' '.join(words)} ended with exit code {process.returncode}")

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            print(f"  {self._since / GIB:5.2f} GiB {line[:150].rstrip()}", flush=True)
            self._since = 0


def case(folder: Path, weights: str) -> bool:
    """Build, and verify what was built."""
    source, output = folder / "wide", folder / f"wide-{weights}.port"
    shutil.rmtree(output, ignore_errors=True)
    build = Watched("build", str(source), "-o", str(output), "--weights", weights, *_FEW)
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"--weights {weights}: {build.cpu_s:.0f} CPU s, {written / 1e9:.3f} GB written", flush=True)
    held = limit("build, peak", build.peak_bytes / GIB, _MOST_GIB[weights], "GiB")
    folder_words = ["--weights", str(source)] if weights == "reference" else []
    verify = Watched("verify", str(output), "--json", *folder_words)
    print(f"  verify: {verify.cpu_s:.0f} CPU s, peak {verify.peak_bytes / GIB:.2f} GiB", flush=True)
    if weights == "copy":
        run = measured(["run", str(output / "parts" / "transformer" / "fp32" / "model.onnx")], 1)
        held &= limit("run of the transformer, mapped, peak", run.peak_bytes / GIB, 0.5, "GiB")
    return held


def main() -> int:
    """Print the figures of both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", nargs="+", choices=tuple(_MOST_GIB), default=tuple(_MOST_GIB))
    words = parser.parse_args()
    print(this_machine())
    write_folder(words.folder / "wide")
    n_bytes = sum(file.stat().st_size for file in (words.folder / "wide").rglob("*.safetensors"))
    print(f"checkpoint: {n_bytes / 1e9:.2f} GB")
    found = [case(words.folder, weights) for weights in words.weights]  # both, also after a bad one
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
