"""ONNX Runtime: providers, the memory limit, errors in our words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from anyport.bundle import open_bundle
from anyport.errors import InputError, MemoryLimitError, SessionError, UsageError
from anyport.runtime import SessionOptions, open_session, open_sessions
from tests.house import tree
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def test_a_plain_file_describes_itself(tmp_path: Path) -> None:
    session = open_session(networks.affine(tmp_path / "a.onnx", beside="a.weights"))
    assert [f"{spec.name} {spec}" for spec in session.inputs] == ["x float32[batch, 3]"]
    assert [f"{spec.name} {spec}" for spec in session.outputs] == ["y float32[batch, 3]"]
    outputs = session.run({"x": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(outputs["y"], np.full((2, 3), 3, np.float32))


def test_a_bundle_s_graph_knows_the_sizes_of_its_axes(tmp_path: Path) -> None:
    with open_bundle(networks.corners_bundle(tmp_path)) as bundle:
        session = open_session(bundle.graph_file("network"))
        with pytest.raises(InputError) as caught:
            session.run({"pixel_values": np.zeros((65, 1, 2, 2), np.float32)})
        session.close()
    assert caught.value.what == "input 'pixel_values' has batch = 65, the model takes 1..64"


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' is missing: float32[batch, 3]"),
        ({"X": np.zeros((1, 3), np.float32)}, "the model has no input 'X' (known: 'x')"),
        ({"x": np.zeros((1, 3))}, "input 'x' is float64, the model takes float32[batch, 3]"),
        (
            {"x": np.zeros((1, 4), np.float32)},
            "input 'x' has size 4 where the model takes 3: float32[batch, 3]",
        ),
        ({"x": np.zeros(3, np.float32)}, "input 'x' has 1 axes (3,), the model takes float32[batch, 3]"),
    ],
)
def test_wrong_feeds_are_refused(tmp_path: Path, feeds: dict[str, np.ndarray], message: str) -> None:
    session = open_session(networks.affine(tmp_path / "a.onnx"))
    with pytest.raises(InputError) as caught:
        session.run(feeds)
    assert caught.value.what == message


def test_arrays_of_any_layout_are_taken(tmp_path: Path) -> None:
    session = open_session(networks.affine(tmp_path / "a.onnx"))
    x = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x + 1)
    assert session.run({"x": np.zeros((0, 3), np.float32)})["y"].shape == (0, 3)


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = open_session(networks.affine(tmp_path / "a.onnx"))
    session.close()
    session.close()
    with pytest.raises(SessionError, match="the session is closed"):
        session.run({"x": np.zeros((1, 3), np.float32)})


# ── providers ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider"])
def test_a_provider_has_two_names(tmp_path: Path, name: str) -> None:
    open_session(networks.affine(tmp_path / "a.onnx"), SessionOptions(provider=name))


def test_a_provider_that_is_not_here_is_no_silent_cpu(tmp_path: Path) -> None:
    with pytest.raises(SessionError) as caught:
        open_session(networks.affine(tmp_path / "a.onnx"), SessionOptions(provider="coreml"))
    assert re.match(
        r"the provider 'coreml' is not in this onnxruntime [\d.]+, which has: ", caught.value.what
    )
    assert caught.value.do == "install a build of onnxruntime that has CoreMLExecutionProvider"


def test_an_unknown_provider_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"onnxruntime has no provider 'cdua' \(did you mean 'cuda'\?\)"):
        open_session(networks.affine(tmp_path / "a.onnx"), SessionOptions(provider="cdua"))


def test_a_provider_that_takes_no_node_is_no_silent_cpu(tmp_path: Path) -> None:
    """The wheel's Azure provider opens any graph and leaves every node to the CPU."""
    with pytest.raises(SessionError) as caught:
        open_session(networks.affine(tmp_path / "a.onnx"), SessionOptions(provider="azure"))
    assert (
        caught.value.what
        == "AzureExecutionProvider took none of the graph's nodes: 2 on CPUExecutionProvider"
    )


# ── opening ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [None, 10**9])
@pytest.mark.parametrize("content", [b"", b"junk, of no kind"])
def test_what_is_no_graph_is_refused(tmp_path: Path, content: bytes, limit: int | None) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(SessionError, match=r"opening the graph failed|is no whole \.onnx file") as caught:
        open_session(path, SessionOptions(memory_limit_bytes=limit))
    assert caught.value.where == str(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"there is no file .*nope\.onnx"):
        open_session(tmp_path / "nope.onnx")


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = networks.affine(tmp_path / "inside" / "a.onnx", beside="a.weights")
    (tmp_path / "inside" / "a.weights").rename(tmp_path / "a.weights")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../a.weights"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SessionError, match="opening the graph failed.*escapes model directory"):
        open_session(path)


def test_an_unknown_optimization_is_refused(tmp_path: Path) -> None:
    wrong = SessionOptions(optimization="ful")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"there is no optimization 'ful' \(known: 'all', 'basic'"):
        open_session(networks.affine(tmp_path / "a.onnx"), wrong)


def test_a_failing_run_is_told_in_our_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    tensors = networks.Tensors(
        {"x": (TensorProto.FLOAT, ["n"])},
        {"y": (TensorProto.FLOAT, [None, None])},
        {"shape": np.array([2, 3])},
    )
    session = open_session(networks.save(tmp_path / "r.onnx", nodes, tensors))
    assert session.run({"x": np.zeros(6, np.float32)})["y"].shape == (2, 3)
    with pytest.raises(SessionError, match="the run failed: .*Reshape") as caught:
        session.run({"x": np.zeros(5, np.float32)})
    assert caught.value.where == f"{tmp_path / 'r.onnx'}, inputs x (5,)"
    assert capfd.readouterr().err == ""


# ── the memory limit ───────────────────────────────────────────────────────────────────────────────────

MB = 10**6


def image(side: int) -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, 1, side, side), np.float32)}


def test_a_run_beyond_the_limit_fails_and_the_session_lives_on(tmp_path: Path) -> None:
    session = open_session(networks.wide(tmp_path / "w.onnx"), SessionOptions(memory_limit_bytes=40 * MB))
    with pytest.raises(SessionError) as caught:
        session.run(image(512))
    assert (
        caught.value.what
        == "the run needs more than the memory limit of 40.0 MB: 67.1 MB more were asked for"
    )
    assert caught.value.do == "raise the memory limit, or give fewer or smaller inputs at a time"
    assert session.run(image(64))["y"].shape == (1, 64, 1, 1)


def test_each_session_has_its_own_limit(tmp_path: Path) -> None:
    path = networks.wide(tmp_path / "w.onnx")
    small = open_session(path, SessionOptions(memory_limit_bytes=40 * MB))
    large = open_session(path, SessionOptions(memory_limit_bytes=400 * MB))
    free = open_session(path)
    for session in (large, free):
        session.run(image(512))
    with pytest.raises(SessionError, match="memory limit of 40.0 MB"):
        small.run(image(512))


def test_weights_count_against_the_limit(tmp_path: Path) -> None:
    path = networks.wide(tmp_path / "w.onnx")
    with pytest.raises(SessionError) as caught:
        open_session(path, SessionOptions(memory_limit_bytes=100_000))
    assert caught.value.what == "the weights take 150.0 kB, the memory limit is 100.0 kB"


def test_a_limit_changes_no_result(tmp_path: Path) -> None:
    path = networks.wide(tmp_path / "w.onnx")
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 1, 33, 47)).astype(np.float32)}
    bounded = open_session(path, SessionOptions(memory_limit_bytes=100 * MB)).run(feeds)["y"]
    np.testing.assert_allclose(bounded, open_session(path).run(feeds)["y"], rtol=1e-5, atol=1e-5)


def test_a_limit_is_for_the_cpu(tmp_path: Path) -> None:
    options = SessionOptions(provider="azure", memory_limit_bytes=100 * MB)
    with pytest.raises(UsageError, match="a memory limit bounds the CPU, not AzureExecutionProvider"):
        open_session(networks.affine(tmp_path / "a.onnx"), options)


_GROWTH = """
import sys
from pathlib import Path
import numpy as np
from anyport.runtime import SessionOptions, open_session
def anonymous_bytes(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))
limit = int(sys.argv[2])
session = open_session(Path(sys.argv[1]), SessionOptions(n_threads=1, memory_limit_bytes=limit))
session.run({"x": np.zeros((1, 1, 8, 8), np.float32)})
before = anonymous_bytes("RssAnon")
for side in (100, 300, 200, 400, 512, 700):
    try:
        session.run({"x": np.zeros((1, 1, side, side), np.float32)})
    except Exception as err:
        assert "memory limit" in str(err), err
print(anonymous_bytes("VmHWM") - anonymous_bytes("VmRSS") + anonymous_bytes("RssAnon") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("limit", [40 * MB, 150 * MB])
def test_the_process_grows_no_further_than_the_limit(tmp_path: Path, limit: int) -> None:
    path = networks.wide(tmp_path / "w.onnx")
    done = subprocess.run(
        [sys.executable, "-c", _GROWTH, str(path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tree.PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    assert limit // 4 < grown < limit + 8 * MB  # 8 MB: the pictures themselves, and Python


# ── copied and mapped weights ──────────────────────────────────────────────────────────────────────────


def products(path: Path, data_type: int = TensorProto.FLOAT, width: int = 1600) -> Path:
    """Two products with weights beside the file, 20 MB in float32; narrow ones are cast at the beginning."""
    random = np.random.default_rng(0)
    graph = helper.make_graph([], "g", [], [])
    for name in ("v", "w"):
        array = random.normal(0, width**-0.5, (width, width)).astype(np.float32)
        half = {TensorProto.FLOAT16: array.astype(np.float16)}
        half[TensorProto.BFLOAT16] = (array.view(np.uint32) >> 16).astype(np.uint16)
        raw = half.get(data_type, array).tobytes()
        graph.initializer.append(helper.make_tensor(name, data_type, array.shape, raw, raw=True))
        if data_type != TensorProto.FLOAT:
            graph.node.append(helper.make_node("Cast", [name], [f"{name}32"], to=TensorProto.FLOAT))
    names = ["v", "w"] if data_type == TensorProto.FLOAT else ["v32", "w32"]
    graph.node.append(helper.make_node("MatMul", ["x", names[0]], ["h"]))
    graph.node.append(helper.make_node("MatMul", ["h", names[1]], ["y"]))
    for name, values in (("x", graph.input), ("y", graph.output)):
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(path), save_as_external_data=True, location=f"{path.stem}.weights", size_threshold=0)
    return path


def rows(n: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(0, 1, (n, 1600)).astype(np.float32)}


def test_mapped_weights_leave_the_limit_to_computing(tmp_path: Path) -> None:
    path = products(tmp_path / "p.onnx")
    mapped = open_session(path, SessionOptions(memory_limit_bytes=25 * MB))
    assert mapped.run(rows(1500))["y"].shape == (1500, 1600)  # 19.2 MB
    copied = open_session(path, SessionOptions(memory_limit_bytes=25 * MB, weights="copied"))
    with pytest.raises(MemoryLimitError, match=r"memory limit of 25\.0 MB: 9\.6 MB more were asked for"):
        copied.run(rows(1500))
    np.testing.assert_allclose(mapped.run(rows(2))["y"], copied.run(rows(2))["y"], rtol=0, atol=1e-5)
    with pytest.raises(MemoryLimitError, match=r"^the weights take 21\.8 MB, the memory limit is 21\.0 MB"):
        open_session(path, SessionOptions(memory_limit_bytes=21 * MB, weights="copied"))


def test_graphs_that_are_opened_together_share_a_limit(tmp_path: Path) -> None:
    paths = [products(tmp_path / f"{name}.onnx") for name in "ab"]
    with pytest.raises(MemoryLimitError) as caught:
        open_sessions(paths, SessionOptions(memory_limit_bytes=40 * MB, weights="copied"))
    assert caught.value.what == "the weights take 43.5 MB, the memory limit is 40.0 MB"
    assert caught.value.where == f"{paths[0]}; {paths[1]}"
    both = open_sessions(paths, SessionOptions(memory_limit_bytes=60 * MB, weights="copied"))
    alone = open_session(paths[0], SessionOptions(memory_limit_bytes=60 * MB, weights="copied"))
    assert alone.run(rows(2500))["y"].shape == (2500, 1600)  # 32 MB beside 20
    for session in both:
        with pytest.raises(MemoryLimitError, match="memory limit of 60"):
            session.run(rows(2500))
        session.run(rows(500))


@pytest.mark.parametrize("data_type", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_narrow_weights_give_the_same_copied_and_mapped(tmp_path: Path, data_type: int) -> None:
    path = products(tmp_path / "p.onnx", data_type)
    free = open_session(path).run(rows(3))["y"]
    limit = 60 * MB
    for weights in ("copied", "mapped"):
        session = open_session(path, SessionOptions(memory_limit_bytes=limit, weights=weights))  # type: ignore[arg-type]
        np.testing.assert_allclose(session.run(rows(3))["y"], free, rtol=0, atol=1e-5)


_OPENED = """
import sys
from pathlib import Path
import anyport.runtime.onnxrt
from anyport.runtime import SessionOptions, open_session
from anyport.task.memory_peak import give_back, own_memory
before = own_memory()
session = open_session(Path(sys.argv[1]), SessionOptions(n_threads=1, weights=sys.argv[2]))
give_back()
print(own_memory() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("weights", "data_type", "least_mb", "most_mb"),
    [
        ("copied", TensorProto.FLOAT, 18, 28),
        ("mapped", TensorProto.FLOAT, 0, 6),
        ("mapped", TensorProto.BFLOAT16, 0, 6),
        ("mapped", TensorProto.FLOAT16, 15, 36),  # it is cast whatever one says: `WeightSizes` counts it so
    ],
)
def test_mapped_weights_are_not_copied(
    tmp_path: Path, weights: str, data_type: int, least_mb: int, most_mb: int
) -> None:
    path = products(tmp_path / "p.onnx", data_type)
    done = subprocess.run(
        [sys.executable, "-c", _OPENED, str(path), weights],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tree.PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert least_mb * MB <= int(done.stdout) <= most_mb * MB


def test_a_session_says_who_took_its_nodes(tmp_path: Path) -> None:
    session = open_session(networks.affine(tmp_path / "a.onnx"), SessionOptions(optimization="none"))
    assert session.nodes_by_provider == {"CPUExecutionProvider": 2}  # type: ignore[attr-defined]
    session.close()
    with pytest.raises(SessionError, match="^the session is closed"):
        session.nodes_by_provider  # type: ignore[attr-defined]  # noqa: B018 -- the access raises
