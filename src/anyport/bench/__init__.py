"""How fast, how large: latency, throughput, memory, load time and size, side by side.

Two or more candidates in (variants of a bundle, plain .onnx files, PyTorch itself as a `Session`), numbers
out that hold on a machine with neighbours: `anyport.bench.pairing` says how. ``docs/bench.md`` explains the
columns.
"""

from anyport.bench.blank import Blank
from anyport.bench.contest import Candidate, Contest, Selection, find_contests, graph_candidate
from anyport.bench.heat import BenchSettings
from anyport.bench.machine import Machine, this_machine
from anyport.bench.measure import Instruments, bench
from anyport.bench.opening import ChildCommand, Opening
from anyport.bench.pairing import PairedRatio, PairSettings, paired_ratios
from anyport.bench.plot import check_plot, draw
from anyport.bench.result import BenchReport, ContestResult, Latency, Row, Speedup
from anyport.bench.table import table_of

__all__ = [
    "BenchReport",
    "BenchSettings",
    "Blank",
    "Candidate",
    "ChildCommand",
    "Contest",
    "ContestResult",
    "Instruments",
    "Latency",
    "Machine",
    "Opening",
    "PairSettings",
    "PairedRatio",
    "Row",
    "Selection",
    "Speedup",
    "bench",
    "check_plot",
    "draw",
    "find_contests",
    "graph_candidate",
    "paired_ratios",
    "table_of",
    "this_machine",
]
