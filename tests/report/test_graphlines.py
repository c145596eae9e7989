"""Every line that is read from the file: a case that fails it, and one that it cannot judge."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from anyport.bundle import PartEntry, Step
from anyport.report import Mark, release_checklist
from anyport.report.graphlines import names
from anyport.runtime.graphfile import read_graph
from tests.report.listing import EXPORT, IMAGE, QUICK, SCORES, SIMPLIFY, Subject, good_nodes, line, tensors
from tests.runtime.networks import Tensors, Words, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def dropout(mode: list[str]) -> list[onnx.NodeProto]:
    flatten, scale = good_nodes()
    scale.output[0] = "scaled"
    return [flatten, scale, helper.make_node("Dropout", ["scaled", "", *mode], ["logits"], name="drop")]


def noisy() -> list[onnx.NodeProto]:
    flatten, scale = good_nodes()
    scale.output[0] = "scaled"
    noise = helper.make_node("RandomNormalLike", ["scaled"], ["noise"], name="noise", scale=0.01)
    return [flatten, scale, noise, helper.make_node("Add", ["scaled", "noise"], ["logits"], name="add")]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (
            Subject(dropout(["yes"]), tensors(yes=np.array(True))),
            "Dropout 'drop' drops values: its training_mode is not false",
        ),
        (Subject(noisy()), "RandomNormalLike 'noise' draws random numbers"),
    ],
)
def test_a_graph_in_training_mode_fails(tmp_path: Path, subject: Subject, words: str) -> None:
    found = line("inference mode", tmp_path, subject)
    assert (found.mark, found.evidence) == (Mark.FAIL, words)


@pytest.mark.parametrize("mode", [[], ["no"]])
def test_a_dropout_that_drops_nothing_passes(tmp_path: Path, mode: list[str]) -> None:
    weights = tensors(no=np.array(False)) if mode else tensors()
    found = line("inference mode", tmp_path, Subject(dropout(mode), weights))
    assert found.mark is Mark.PASS
    assert "1 Dropout in inference mode" in found.evidence


def test_statistics_of_the_batch_fail(tmp_path: Path) -> None:
    four = {name: np.ones(4, np.float32) for name in ("scale", "bias", "mean", "var")}
    flatten, scale = good_nodes()
    scale.output[0] = "scaled"
    norm = helper.make_node(
        "BatchNormalization", ["scaled", *four], ["logits", "m", "v"], name="norm", training_mode=1
    )
    found = line("inference mode", tmp_path, Subject([flatten, scale, norm], tensors(**four)))
    assert (found.mark, found.evidence) == (
        Mark.FAIL,
        "BatchNormalization 'norm' takes the statistics of the batch",
    )


def branching(condition: str) -> list[onnx.NodeProto]:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])
        return helper.make_graph(
            [helper.make_node(operator, ["scaled"], [name], name=f"{name}_node")], name, [], [out]
        )

    flatten, scale = good_nodes()
    scale.output[0] = "scaled"
    sides = {"then_branch": branch("a", "Identity"), "else_branch": branch("b", "Identity")}
    node = helper.make_node("If", [condition], ["logits"], name="choice", **sides)
    if condition == "fixed":
        return [flatten, scale, node]
    asks = helper.make_node("Shape", ["flat"], ["shape"], name="shape", start=0, end=1)
    many = helper.make_node("Greater", ["shape", "one"], ["more"], name="more")
    squeeze = helper.make_node("Squeeze", ["more"], [condition], name="squeeze")
    return [flatten, scale, asks, many, squeeze, node]


def test_a_branch_that_is_always_taken_fails(tmp_path: Path) -> None:
    subject = Subject(branching("fixed"), tensors(fixed=np.array(True)))
    found = line("control flow kept", tmp_path, subject)
    assert found.mark is Mark.FAIL
    assert found.evidence == "If 'choice' takes the same branch always: its condition is a constant"


def test_a_branch_that_is_chosen_passes(tmp_path: Path) -> None:
    subject = Subject(branching("chosen"), tensors(one=np.array([1])))
    found = line("control flow kept", tmp_path, subject)
    assert found.mark is Mark.PASS
    assert "the graph has 1 If and follows PyTorch on 5 cases of 3 sizes" in found.evidence


def test_a_branch_that_another_variant_still_has_fails(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        Subject(branching("chosen"), tensors(one=np.array([1]))).open(tmp_path / "other") as other,
        Subject().open(tmp_path) as opened,
    ):
        theirs = other.graph_file("network")
        ours = opened.graph_file
        both = {"fp32": opened.manifest.variants["fp32"], "slim": opened.manifest.variants["fp32"]}
        opened.manifest = msgspec.structs.replace(opened.manifest, variants=both)
        opened.graph_file = lambda part, name=None: theirs if name == "slim" else ours(part, name)  # type: ignore[method-assign]
        lines = release_checklist(opened, QUICK).lines
    found = next(one for one in lines if one.name == "control flow kept")
    assert (found.mark, found.evidence) == (
        Mark.FAIL,
        "variant slim has 1 nodes of control flow, this one 0",
    )


def test_answers_that_are_wrong_at_one_size_look_like_a_lost_branch(tmp_path: Path) -> None:
    nodes = branching("chosen")
    nodes[-1].attribute[0].g.node[0].op_type = "Neg"  # of one of the branches
    found = line("control flow kept", tmp_path, Subject(nodes, tensors(one=np.array([1]))))
    assert found.mark is Mark.FAIL
    assert found.evidence == "2 of 5 cases differ from PyTorch, which is how a lost branch looks"


def test_nobody_knows_how_a_graph_without_steps_was_captured(tmp_path: Path) -> None:
    found = line("control flow kept", tmp_path, Subject(steps=()))
    assert (found.mark, found.evidence) == (Mark.UNTESTED, "no step says how the model was captured")


def renamed(old: str, new: str) -> Subject:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            value.name = new if value.name == old else value.name

    part = Words().part
    inputs = {new if name == old else name: text for name, text in part.inputs.items()}
    words = replace(Words(), task=None, settings={}, part=PartEntry(inputs, part.outputs, part.dims))
    return Subject(change=change, words=words if old == "pixel_values" else Words())


def same_names(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = "same"


def same_values(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "logits"


def no_words(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "output.1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (same_names, "1 names stand for two nodes each: same"),
        (same_values, "1 names stand for two values each: logits"),
        (no_words, "inputs and outputs are called 'output.1'"),
    ],
)
def test_names_that_are_unclear_or_twice_fail(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    """ONNX Runtime does not open the first two, other runtimes do."""
    path = save(tmp_path / "graph.onnx", good_nodes(), tensors())
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))
    found = names(SimpleNamespace(model=read_graph(path)))  # type: ignore[arg-type]
    assert (found.mark, found.evidence) == (Mark.FAIL, words)


def test_weights_with_generated_names_fail(tmp_path: Path) -> None:
    found = line("names clear and unique", tmp_path, renamed("ten", "onnx::Mul_3"))
    assert found.mark is Mark.FAIL
    assert found.evidence == "more than half of the weights are called like 'onnx::Mul_3'"


@pytest.mark.parametrize("name", ["input.1", "onnx::Conv_0", "12", "val_7"])
def test_ends_with_generated_names_fail(name: str) -> None:
    from anyport.report.graphlines import _GENERATED, _WORD

    assert not _WORD.fullmatch(name) or _GENERATED.fullmatch(name)


@pytest.mark.parametrize("name", ["x", "input_ids", "pixel_values", "logits", "input1", "y_2"])
def test_ends_with_names_that_say_something_pass(name: str) -> None:
    from anyport.report.graphlines import _GENERATED, _WORD

    assert _WORD.fullmatch(name)
    assert not _GENERATED.fullmatch(name)


def fixed_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3


def test_an_axis_that_the_file_fixes_fails(tmp_path: Path) -> None:
    found = line("dynamic axes as declared", tmp_path, Subject(change=fixed_output))
    assert found.mark is Mark.FAIL
    assert found.evidence == ("output 'logits' has the fixed size 3 at axis 0, float32[batch, 4] is declared")


def other_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "unk__0"


def test_an_axis_of_another_name_fails(tmp_path: Path) -> None:
    found = line("dynamic axes as declared", tmp_path, Subject(change=other_name))
    assert (found.mark, found.evidence) == (
        Mark.FAIL,
        "input 'pixel_values' has the name 'unk__0' at axis 0, float32[batch, 1, 2, 2] is declared",
    )


def test_an_axis_that_ran_at_one_size_is_untested(tmp_path: Path) -> None:
    found = line("dynamic axes as declared", tmp_path, Subject(sizes=(3, 3, 3)))
    assert (found.mark, found.evidence) == (
        Mark.UNTESTED,
        "the file has them; batch ran at fewer than two sizes",
    )


def static(batch: int) -> Subject:
    part = PartEntry({"pixel_values": f"float32[{batch}, 1, 2, 2]"}, {"logits": f"float32[{batch}, 4]"}, {})
    ends = Tensors(
        {"pixel_values": (IMAGE[0], [batch, 1, 2, 2])},
        {"logits": (SCORES[0], [batch, 4])},
        {"ten": np.array([10], np.float32)},
    )
    words = replace(Words(), task=None, settings={}, part=part)
    return Subject(tensors=ends, words=words, sizes=(batch,) * 4)


def test_a_static_variant_has_no_dynamic_axes(tmp_path: Path) -> None:
    found = line("dynamic axes as declared", tmp_path, static(2))
    assert found.mark is Mark.NOT_APPLICABLE
    assert "pixel_values float32[2, 1, 2, 2]" in found.evidence


def test_nodes_that_nobody_needs_fail(tmp_path: Path) -> None:
    idle = helper.make_node("Neg", ["flat"], ["nothing"], name="idle")
    found = line("simplified", tmp_path, Subject([*good_nodes(), idle]))
    assert (found.mark, found.evidence) == (Mark.FAIL, "1 of 3 nodes compute what nobody uses: idle")


def test_without_the_step_nothing_was_simplified(tmp_path: Path) -> None:
    found = line("simplified", tmp_path, Subject(steps=(EXPORT,)))
    assert (found.mark, found.do) == (Mark.UNTESTED, "anyport build --simplify auto")
    (tmp_path / "with").mkdir()
    found = line("simplified", tmp_path / "with", Subject())
    assert found.mark is Mark.PASS
    assert found.evidence == "onnxslim kept: 3 -> 2 nodes, proven equal; no node is idle"


COMPRESS = Step("compress", {"method": "int8-dynamic"}, "3.6x smaller")


def test_a_quantizer_that_did_nothing_fails(tmp_path: Path) -> None:
    found = line("quantization tried", tmp_path, Subject(steps=(EXPORT, COMPRESS)))
    assert (found.mark, found.evidence) == (
        Mark.FAIL,
        "a step 'compress' is recorded (3.6x smaller), and of the weights 0.0 % are narrower than float32",
    )


def test_weights_that_are_narrow_pass(tmp_path: Path) -> None:
    flatten, scale = good_nodes()
    scale.input[1] = "wide"
    cast = helper.make_node("Cast", ["ten"], ["wide"], name="widen", to=TensorProto.FLOAT)
    narrow = Tensors({"pixel_values": IMAGE}, {"logits": SCORES}, {"ten": np.array([10], np.int8)})
    found = line("quantization tried", tmp_path, Subject([flatten, cast, scale], narrow, (EXPORT, COMPRESS)))
    assert (found.mark, found.evidence) == (
        Mark.PASS,
        "100 % of the weights are narrower; 3.6x smaller",
    )


def test_a_variant_that_was_tried_beside_it_counts(tmp_path: Path) -> None:
    with Subject().open(tmp_path) as opened:
        entry = opened.manifest.variants["fp32"]
        small = msgspec.structs.replace(entry, steps=[EXPORT, COMPRESS])
        both = {"fp32": entry, "int8": small}
        opened.manifest = msgspec.structs.replace(opened.manifest, variants=both)
        lines = release_checklist(opened, QUICK).lines
    found = next(one for one in lines if one.name == "quantization tried")
    assert (found.mark, found.evidence) == (Mark.PASS, "tried: int8: 3.6x smaller")


def test_a_level_that_is_not_the_measured_one_fails(tmp_path: Path) -> None:
    found = line("optimization level chosen", tmp_path, Subject(optimization="basic"))
    assert (found.mark, found.evidence) == (
        Mark.FAIL,
        "the step 'simplify' chose 'all', the manifest names 'basic'",
    )


def test_a_default_level_is_untested(tmp_path: Path) -> None:
    found = line("optimization level chosen", tmp_path, Subject(steps=(EXPORT,)))
    assert (found.mark, found.do) == (Mark.UNTESTED, "anyport build --simplify auto")
    assert SIMPLIFY.settings["optimization"] == "all"
