from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from anyport.compress.compressing import compress_file, compress_graph
from anyport.compress.quantizing import quantize
from anyport.errors import CompressError, ExportError, SourceError, UsageError
from tests.compress import smallnets
from tests.compress.smallnets import (
    PICTURES,
    WORDS,
    Arrays,
    beside,
    burdened,
    convnet,
    pictures,
    request,
    sentences,
    textnet,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.compress.compressing import CompressRequest
    from anyport.compress.methods import Method
    from anyport.runtime import Session
    from anyport.verify import Evaluation


def planted(graph: Path, name: str, **changes: Any) -> CompressRequest:
    made = request("int8-dynamic:u8s8", WORDS, graph, sentences(64))
    return replace(made, quantizer=getattr(smallnets, name), **changes)


def refused(graph: Path, output: Path, asked: CompressRequest) -> CompressError:
    before = sorted(path.name for path in output.parent.iterdir())
    with pytest.raises(CompressError) as caught:
        compress_graph(graph, output, asked)
    assert sorted(path.name for path in output.parent.iterdir()) == before  # nothing is written
    return caught.value


# ── the gates ───────────────────────────────────────────────────────────────────────────────────────────
def test_a_quantizer_that_does_nothing_is_refused(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    err = refused(graph, tmp_path / "out.onnx", planted(graph, "idle"))
    assert err.what.startswith("int8-dynamic:u8s8 did nothing: the nodes are the same, ")


def test_one_that_is_slower_is_refused(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    err = refused(graph, tmp_path / "out.onnx", planted(graph, "slow", prefer="speed"))
    assert err.what.startswith("int8-dynamic:u8s8 is not faster: 0.")
    assert err.do == "leave the model as it is, or say that its size matters: --prefer size"


def test_one_that_is_slower_is_kept_for_its_size_and_the_summary_says_so(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    found = compress_graph(graph, tmp_path / "out.onnx", planted(graph, "slow", prefer="size"))
    assert (found.kept, found.is_faster) == ("int8-dynamic:u8s8", False)
    assert "NOT FASTER (0." in found.summary()
    assert "kept for size" in found.summary()
    assert (tmp_path / "out.onnx").is_file()


@pytest.mark.parametrize("prefer", ["size", "speed"])
def test_one_that_ruins_the_metric_is_refused(tmp_path: Path, prefer: str) -> None:
    original = textnet(tmp_path / "lean.onnx")
    graph = burdened(textnet(tmp_path / "in.onnx"))

    def quick_and_wrong(_graph: Path, *words: Any) -> Any:
        return smallnets.ruinous(original, *words)

    asked = replace(planted(graph, "ruinous", prefer=prefer), quantizer=quick_and_wrong)
    err = refused(graph, tmp_path / "out.onnx", asked)
    assert err.what.startswith("int8-dynamic:u8s8 does not hold the metric: cosine 1 -> -")


def test_one_that_no_runtime_opens_is_refused(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    err = refused(graph, tmp_path / "out.onnx", planted(graph, "broken"))
    assert err.what.startswith("int8-dynamic:u8s8 cannot be used: opening the graph failed: ")
    assert err.where == "in.onnx"
    assert str(tmp_path) not in str(err)  # of a folder that is gone


def test_what_is_faster_and_right_passes_all_three(tmp_path: Path) -> None:
    """The original carries a burden that the quantizer takes off, so that no clock can be in doubt."""
    original = textnet(tmp_path / "lean.onnx")
    graph = burdened(textnet(tmp_path / "in.onnx"))

    def lean(_graph: Path, *words: Any) -> Any:
        return quantize(original, *words)

    asked = replace(planted(graph, "slow", prefer="speed"), quantizer=lean)
    found = compress_graph(graph, tmp_path / "out.onnx", asked)
    assert found.is_faster
    assert found.ratio > 1.5
    assert found.smaller > 2.5
    assert found.optimization == found.baseline == "all"
    [trial] = found.trials
    assert (trial.status, trial.method) == ("kept", "int8-dynamic:u8s8")
    assert found.summary().startswith(
        f"int8-dynamic:u8s8   {found.smaller:.2f}x smaller, {found.ratio:.2f}x faster"
    )
    assert [entry.node for entry in found.kept_float] == ["scores", "mixed"]
    assert "stayed float: 2 MatMul: no operand is a float32 weight" in str(found)


# ── the choice among candidates ─────────────────────────────────────────────────────────────────────────
def test_of_flavours_one_is_kept_and_every_one_is_accounted_for(tmp_path: Path) -> None:
    graph = beside(convnet(tmp_path / "in.onnx"))
    said: list[tuple[str, str]] = []
    asked = request("int8-static", PICTURES, graph, pictures(64))
    found = compress_graph(graph, tmp_path / "out.onnx", asked, lambda step, line: said.append((step, line)))
    assert [trial.status for trial in found.trials].count("kept") == 1
    assert sorted(trial.method for trial in found.trials) == [
        "int8-static:s8s8",
        "int8-static:u8s8",
        "int8-static:u8s8:reduced",
        "int8-static:u8u8",
    ]
    assert all(trial.reason for trial in found.trials if trial.status != "kept")
    assert said[0] == ("calibrate", "6 activations, 64 samples of noise")
    assert found.calibrated_on == "noise"
    assert (tmp_path / "out.safetensors").is_file()
    assert found.to_json()["kept"] == found.kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.onnx",
        "in.safetensors",
        "out.onnx",
        "out.safetensors",
    ]


def test_static_flavours_are_left_out_where_there_are_no_samples(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    model = onnx.load(graph)
    onnx.save(model, graph)
    asked = replace(request("int8", WORDS, graph, sentences(64)), calibration=None)
    found = compress_graph(graph, tmp_path / "out.onnx", asked)
    assert {trial.method.split(":")[0] for trial in found.trials} == {"int8-dynamic"}
    assert found.calibrated_on == ""
    convolving = convnet(tmp_path / "conv.onnx")
    asked = replace(request("int8-static", PICTURES, convolving, pictures(64)), calibration=None)
    with pytest.raises(UsageError, match="int8-static:u8s8 needs samples to find its ranges"):
        compress_graph(convolving, tmp_path / "none.onnx", asked)


def test_fp16_is_a_download_format(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    found = compress_graph(graph, tmp_path / "out.onnx", request("fp16", WORDS, graph, sentences(64)))
    assert found.smaller > 1.9
    assert found.kept == "fp16"


def test_an_original_that_is_not_proven_is_no_measure(tmp_path: Path) -> None:
    graph, other = textnet(tmp_path / "in.onnx"), tmp_path / "other.onnx"
    model = onnx.load(graph)
    onnx.save(model, other)
    asked = planted(graph, "slow")
    from anyport.runtime import open_session
    from anyport.verify import SessionReference

    changed = onnx.load(graph)
    changed.graph.node[-1].attribute.append(onnx.helper.make_attribute("alpha", 1.5))
    onnx.save(changed, other)
    session = open_session(other)
    asked = replace(asked, equality=replace(asked.equality, reference=SessionReference(session)))
    err = refused(graph, tmp_path / "out.onnx", asked)
    session.close()
    assert err.what.startswith("there is no proven fp32 to be faster than: level all: ")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    graph, output = textnet(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    asked = planted(graph, "slow", prefer="size")
    found = compress_file((graph, output), asked)
    assert found.size_bytes == output.stat().st_size
    with pytest.raises(UsageError, match="'out.onnx' exists already"):
        compress_file((graph, output), asked)
    compress_file((graph, output), asked, force=True)


def test_weights_that_the_input_needs_are_not_replaced(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="out.safetensors")
    before = (tmp_path / "out.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"^'out.safetensors' would be replaced, and 'in.onnx' needs it"):
        compress_file((graph, tmp_path / "out.onnx"), planted(graph, "slow", prefer="size"), force=True)
    assert (tmp_path / "out.safetensors").read_bytes() == before
    assert not (tmp_path / "out.onnx").exists()


# ── what goes wrong with one candidate ──────────────────────────────────────────────────────────────────
def test_a_candidate_that_cannot_be_made_costs_only_itself(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")

    def picky(source: Path, method: Method, *words: Any) -> Any:
        if method.text.endswith(("u8s8", "reduced")):
            raise (CompressError if method.text.endswith("u8s8") else ExportError)("it is too odd")
        return quantize(source, method, *words)

    asked = replace(request("int8-dynamic", WORDS, graph, sentences(64)), quantizer=picky)
    found = compress_graph(graph, tmp_path / "out.onnx", asked)
    assert found.kept == "int8-dynamic:u8u8"
    assert {trial.method: (trial.status, trial.reason) for trial in found.trials} == {
        "int8-dynamic:u8u8": ("kept", ""),
        "int8-dynamic:u8s8": ("failed", "int8-dynamic:u8s8 cannot be made: it is too odd"),
        "int8-dynamic:u8s8:reduced": ("failed", "int8-dynamic:u8s8:reduced cannot be made: it is too odd"),
    }


def test_samples_that_give_no_ranges_cost_only_the_static_ones(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "in.onnx")
    sick = Arrays("sick", ({"x": np.full((1, 3, 16, 16), np.nan, np.float32)},))
    asked = replace(request("int8", PICTURES, graph, pictures(64)), calibration=sick)
    found = compress_graph(graph, tmp_path / "out.onnx", asked)
    assert found.kept.startswith("int8-dynamic:")
    failed = [trial for trial in found.trials if trial.status == "failed"]
    assert len(failed) == 4
    assert failed[0].reason == (
        "int8-static:u8s8 cannot be made: input 'x' is not finite in sample 1 of 'sick': it holds NaN"
    )
    err = refused(graph, tmp_path / "none.onnx", replace(asked, method="int8-static"))
    assert err.what.endswith("cannot be made: input 'x' is not finite in sample 1 of 'sick': it holds NaN")


def test_a_candidate_that_the_metric_has_no_number_for_costs_only_itself(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    asked = request("int8-dynamic", WORDS, graph, sentences(64))
    n_judged = 0

    def check(session: Session) -> Evaluation:
        nonlocal n_judged
        n_judged += 1
        if n_judged == 1:
            raise SourceError("'evaluate.py:accuracy' returns nan, not a number")
        return asked.check(session)

    found = compress_graph(graph, tmp_path / "out.onnx", replace(asked, check=check))
    [worse] = [trial for trial in found.trials if trial.status == "worse"]
    assert worse.method != found.kept
    assert worse.reason == (
        f"{worse.method} cannot be judged: 'evaluate.py:accuracy' returns nan, not a number"
    )


def test_an_old_opset_is_refused_before_anything_is_calibrated(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "in.onnx")
    model = onnx.load(graph)
    model.opset_import[0].version = 12
    onnx.save(model, graph)
    said: list[str] = []
    asked = request("int8-static", PICTURES, convnet(tmp_path / "new.onnx"), pictures(64))
    with pytest.raises(UsageError, match="in.onnx has opset 12, int8-static:u8s8 needs 13 or newer"):
        compress_graph(graph, tmp_path / "out.onnx", asked, lambda _step, line: said.append(line))
    assert said == []
