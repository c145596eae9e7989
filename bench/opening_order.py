"""Are identical graphs equally fast in `anyport bench`, whatever the order in which they are opened?

Several copies of one graph, its weights larger than the processor's cache, are measured against each other:
once all opened in one order, which is what a simple benchmark does, and once as `anyport bench` does it, in
rotating orders. The first shows the advantage of a place in memory, the second should show none: within 3 %.

    python bench/opening_order.py [N_COPIES] [SECONDS]
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anyport.bench import BenchSettings, Selection, bench, find_contests, this_machine
from anyport.bench.heat import Heat
from anyport.bench.measure import choose_rounds
from anyport.bench.pairing import ratios, system_clocks, time_rounds
from anyport.bench.result import Speedup

_WIDTH: Final = 2048
_N_LAYERS: Final = 4  # of 16.8 MB: 67 MB together
_NOISE: Final = 0.03


def save_perceptron(path: Path) -> None:
    """Write a graph that reads 67 MB of weights for one row."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            random.standard_normal((_WIDTH, _WIDTH), np.float32) / _WIDTH**0.5, f"layer{i}.weight"
        )
        for i in range(_N_LAYERS)
    ]
    names = ["x", *(f"hidden{i}" for i in range(_N_LAYERS - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[i], f"layer{i}.weight"], [names[i + 1]]) for i in range(_N_LAYERS)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "copies", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def main(n_copies: int = 5, budget_s: float = 120.0) -> int:
    """Print both measurements; return 1 if copies differ by more than the noise."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = [Path(folder) / f"copy{i}.onnx" for i in range(n_copies)]
        for path in paths:
            save_perceptron(path)
        [contest] = find_contests(paths, Selection(), stack)
        settings = BenchSettings(budget_s=budget_s, batches=(1,), n_children=1)
        heat = Heat(contest, 1, settings, system_clocks(1))
        heat.open_all()
        feeds = heat.feeds(contest.sizes)
        timings = time_rounds(heat.runs(feeds), choose_rounds(heat.round_s(feeds), heat), heat.clocks)
        heat.close()
        one_order = ratios({name: timing.cpu_s for name, timing in timings.items()}, contest.base)
        rows = bench(contest, settings).rows
    rotating = [row.speedup_cpu.median for row in rows if isinstance(row.speedup_cpu, Speedup)]
    machine = this_machine()
    print(f"{n_copies} copies of 67 MB, times faster than the first by CPU time")
    print(f"  {machine.cpu}: {' '.join(machine.isa)}")
    print("  opened in one order    ", "  ".join(f"{r.median:.3f}" for r in one_order.values()))
    print("  opened as bench does   ", "  ".join(f"{ratio:.3f}" for ratio in rotating))
    worst = max(abs(ratio - 1) for ratio in rotating)
    print(f"  furthest from 1: {100 * worst:.1f} %")
    return int(worst > _NOISE or len(rotating) < n_copies)


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(int(words[0]) if words else 5, float(words[1]) if len(words) > 1 else 120.0))
