"""Attention alone, in ONNX's own operators and as one of ONNX Runtime: time and memory.

``python bench/attention.py [--tokens 1324 4160] [--heads 24] [--size 128]``: each form in a process of its
own, one run after a short one, on one thread. The exit code is 1 if the two answer differently, or the
operator is slower.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from anyport.bench.blank import Blank
from anyport.bench.memory import mark_memory, peak_since
from anyport.build.fusing import plain_attention
from anyport.graph.attention import AttentionSite, fuse_attention
from anyport.graph.fastest import TIE
from anyport.graph.storing import write_model
from anyport.runtime import SessionOptions, open_session
from machine import this_machine

INPUTS: Final = ("query", "keys", "values")
LARGEST: Final = 1e-5  # of answers that are averages of numbers around 1


def measure(path: Path, n_tokens: int, width: int) -> dict[str, float | str | list[float]]:
    """Run a graph once, and return its CPU time, its memory, and the first numbers of its answer."""
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal((1, n_tokens, width), np.float32) for name in INPUTS}
    session = open_session(path, SessionOptions(n_threads=1))
    session.run({name: array[:, :8] for name, array in feeds.items()})
    mark, started_s = mark_memory(), time.process_time()
    answer = session.run(feeds)["mixed"]
    spent_s, peak = time.process_time() - started_s, peak_since(mark)
    memory = peak.why if isinstance(peak, Blank) else f"{peak / 1e6:.0f} MB"
    return {"cpu_s": spent_s, "memory": memory, "answer": answer[0, ::97, 0].tolist()}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1324, 4160])
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    words = parser.parse_args()
    width = words.heads * words.size
    if words.measure:
        print(json.dumps(measure(Path(words.measure), words.tokens[0], width)))
        return 0
    print(this_machine())
    site = AttentionSite("weights", words.heads, words.size, words.size)
    is_bad = False
    with tempfile.TemporaryDirectory() as folder:
        plain, fused = Path(folder, "plain.onnx"), Path(folder, "fused.onnx")
        write_model(plain_attention(site, dict.fromkeys(INPUTS, width)), plain)
        fuse_attention(plain, [site], fused)
        for n_tokens in words.tokens:
            found = []
            for path in (plain, fused):
                sizes = ["--tokens", str(n_tokens), "--heads", str(words.heads), "--size", str(words.size)]
                command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(path), *sizes]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout))
                print(
                    f"  {n_tokens} tokens   {path.stem}   {found[-1]['cpu_s']:.2f} s   {found[-1]['memory']}"
                )
            one, other = found
            is_bad |= float(np.abs(np.subtract(one["answer"], other["answer"])).max()) > LARGEST
            is_bad |= other["cpu_s"] > one["cpu_s"] * (1 + TIE)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
