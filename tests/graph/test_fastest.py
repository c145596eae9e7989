from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from anyport.bench.inputs import bench_case
from anyport.bench.pairing import PairedRatio
from anyport.errors import SessionError, UsageError
from anyport.graph.fastest import (
    LEVELS,
    Contestant,
    RaceSettings,
    levels_named,
    pair_settings,
    race,
    ranked,
)
from anyport.tensors import Signature
from tests.graph import planted
from tests.graph.smallgraphs import DIMS, INPUTS, OUTPUTS, perceptron

CASE = bench_case(Signature(INPUTS, OUTPUTS, DIMS), {"batch": 1})


def contestant(tool: str, n_nodes: int, level: str = "all") -> Contestant:
    return Contestant(tool, Path(f"{tool}.onnx"), n_nodes, level)  # type: ignore[arg-type]


def ratio(median: float) -> PairedRatio:
    return PairedRatio(median, median, median, 1.0)


NONE, NONE_PLAIN = contestant("none", 50), contestant("none", 50, "none")
SLIM, SLIM_PLAIN = contestant("slim", 40), contestant("slim", 40, "none")
SIM = contestant("sim", 45)
BROKEN = SessionError("it does not open")


@pytest.mark.parametrize(
    ("measured", "first"),
    [
        ({NONE: ratio(1.0), SLIM: ratio(1.2), SIM: ratio(1.0)}, SLIM),
        ({NONE: ratio(1.0), SLIM: ratio(0.9), SIM: ratio(0.8)}, NONE),
        ({NONE: ratio(1.0), SLIM: ratio(0.98), SIM: ratio(1.0)}, SLIM),  # a tie: fewer nodes
        ({NONE: ratio(1.0), SLIM: ratio(0.96), SIM: ratio(0.99)}, SIM),  # slim is out of the tie
        ({NONE: ratio(1.0), NONE_PLAIN: ratio(1.1)}, NONE_PLAIN),
        ({NONE: ratio(1.0), NONE_PLAIN: ratio(1.02)}, NONE),  # a tie: what the runtime does unasked
        ({SLIM_PLAIN: ratio(1.3), NONE: ratio(1.0), SLIM: ratio(1.28)}, SLIM),
        ({NONE: ratio(1.0), SLIM: BROKEN}, NONE),
    ],
)
def test_the_rule(measured: dict[Contestant, PairedRatio | SessionError], first: Contestant) -> None:
    order = ranked(measured)
    assert order[0] is first
    assert sorted(map(hash, order)) == sorted(
        hash(c) for c, found in measured.items() if not isinstance(found, SessionError)
    )


def test_of_equals_with_equally_many_nodes_the_original_is_first() -> None:
    same = contestant("slim", 50)
    assert ranked({same: ratio(1.0), NONE: ratio(1.0)})[0] is NONE


def test_the_kept_one_is_within_the_noise_of_the_fastest() -> None:
    for step in range(80, 130):
        measured = {NONE: ratio(1.0), SLIM: ratio(step / 100), SIM: ratio(1.1)}
        first = measured[ranked(measured)[0]]
        assert first.median * 1.03 >= max(found.median for found in measured.values())


@pytest.mark.parametrize(
    ("run_s", "n_runs", "budget_s", "rounds", "repeats"),
    [(1e-5, 4, 60.0, 7, 100), (0.001, 16, 60.0, 7, 10), (0.4, 3, 6.1, 5, 1), (5.0, 12, 60.0, 3, 1)],
)
def test_rounds_within_a_budget(
    run_s: float, n_runs: int, budget_s: float, rounds: int, repeats: int
) -> None:
    found = pair_settings(run_s, n_runs, budget_s)
    assert (found.n_rounds, found.n_repeats) == (rounds, repeats)


def test_a_race_says_how_many_times_faster(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    planted.slower(source, tmp_path / "slower.onnx")
    planted.garbage(source, tmp_path / "garbage.onnx")
    base = Contestant("none", source, 5, "all")
    others = [Contestant(name, tmp_path / f"{name}.onnx", 5, "all") for name in ("slower", "garbage")]
    for open_bytes in (1 << 30, 1):  # all at once, or in pairs
        found = race([base, *others], CASE, INPUTS, RaceSettings(1.0, open_bytes))
        assert isinstance(found[others[1]], SessionError)
        slower, own = found[others[0]], found[base]
        assert not isinstance(slower, SessionError)
        assert not isinstance(own, SessionError)
        assert own.median == 1.0
        assert slower.median < 0.9


def test_a_race_needs_an_original_that_opens(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    model = onnx.load(source)
    model.graph.node[3].op_type = "NoSuchOperator"
    onnx.save(model, source)
    with pytest.raises(SessionError, match="^opening the graph failed: "):
        race([Contestant("none", source, 5, "all")], CASE, INPUTS, RaceSettings())


def test_levels_have_an_order_of_their_own() -> None:
    assert levels_named(["none", "basic", "all"]) == ("all", "basic", "none")
    assert levels_named(LEVELS) == LEVELS
    with pytest.raises(UsageError, match=r"^there is no optimization level 'ful'"):
        levels_named(["ful"])
