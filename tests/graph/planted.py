"""Simplifiers that go wrong, each in one way: run as ``planted.py NAME IN.onnx OUT.onnx``, never imported."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable


def abort(_source: Path, _target: Path) -> None:
    os.abort()


def hang(_source: Path, _target: Path) -> None:
    time.sleep(600)


def hungry(_source: Path, _target: Path) -> None:
    kept = []
    while True:
        kept.append(np.ones(8 << 20))


def talkative(_source: Path, _target: Path) -> None:
    while True:
        sys.stderr.write("warning " * 10_000)


def raising(_source: Path, _target: Path) -> None:
    raise ValueError("this operator is too hard for me")


def nothing(_source: Path, _target: Path) -> None:
    pass


def garbage(_source: Path, target: Path) -> None:
    target.write_bytes(b"\x00\xff garbage" * 100)


def leaves_a_child(source: Path, target: Path) -> None:
    """Honest, but for a process that it leaves behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    target.with_name("child.pid").write_text(str(child.pid))
    honest(source, target)


def overwrites(source: Path, target: Path) -> None:
    onnx.save(onnx.load(source), target)
    with source.open("ab") as file:
        file.write(b"\x00")


def honest(source: Path, target: Path) -> None:
    """Remove the Identity nodes, as a simplifier should."""
    model = onnx.load(source)
    for node in [node for node in model.graph.node if node.op_type == "Identity"]:
        users = [user for user in model.graph.node if node.output[0] in user.input]
        for user in users:
            user.input[list(user.input).index(node.output[0])] = node.input[0]
        model.graph.node.remove(node)
    onnx.save(model, target)


def forgetful(source: Path, target: Path) -> None:
    """Right, but without the names of axes and all that the file says of itself."""
    honest(source, target)
    model = onnx.load(target)
    for value in [*model.graph.input, *model.graph.output]:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = "unk__0"
    del model.metadata_props[:]
    model.producer_name = "forgetful"
    onnx.save(model, target)


def wrong(source: Path, target: Path) -> None:
    """Remove the Identity nodes, and scale one weight by 1.02."""
    honest(source, target)
    model = onnx.load(target)
    weight = next(w for w in model.graph.initializer if w.name == "second.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.02), weight.name))
    onnx.save(model, target)


def slower(source: Path, target: Path) -> None:
    """Right, with a product of large matrices whose result is divided out of the answer again."""
    model = onnx.load(source)
    last = model.graph.node[-1]
    output = last.output[0]
    last.output[0] = "before"
    ones = numpy_helper.from_array(np.ones((1, 300), np.float32), "ones")
    model.graph.initializer.append(ones)
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["before"], ["max"], keepdims=1),
            helper.make_node("Mul", ["max", "ones"], ["row"]),
            helper.make_node("Transpose", ["row"], ["column"], perm=[1, 0]),
            helper.make_node("MatMul", ["column", "row"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["large"]),
            helper.make_node("ReduceMax", ["large"], ["much"], keepdims=0),
            helper.make_node("Sub", ["much", "much"], ["zero"]),
            helper.make_node("Add", ["before", "zero"], [output]),
        ]
    )
    onnx.save(model, target)


def renamed_output(source: Path, target: Path) -> None:
    model = onnx.load(source)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "z"
    onnx.save(model, target)


def frozen_axis(source: Path, target: Path) -> None:
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, target)


def other_opset(source: Path, target: Path) -> None:
    model = onnx.load(source)
    model.opset_import[0].version = 21
    onnx.save(model, target)


def huge(source: Path, target: Path) -> None:
    model = onnx.load(source)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1 << 20, np.float32), "ballast"))
    onnx.save(model, target)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    tool.__name__: tool
    for tool in (
        abort,
        forgetful,
        frozen_axis,
        garbage,
        hang,
        honest,
        huge,
        hungry,
        leaves_a_child,
        nothing,
        other_opset,
        overwrites,
        raising,
        renamed_output,
        slower,
        talkative,
        wrong,
    )
}

if __name__ == "__main__":
    TOOLS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
