"""Graphs on disk: valid ONNX, weights that any safetensors reader opens, the same bytes every time."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from anyport import __version__
from anyport.errors import ExportError, UsageError
from anyport.graph import storing
from anyport.graph.convert import convert
from anyport.graph.storing import (
    StoreOptions,
    check_file,
    files_of,
    staged_graph,
    store,
    weights_name,
    write_model,
)
from tests.graph.exports import PARTS, export, holds, run_onnx, shared, weights_of, write_all
from tests.source.parts import X, part_of

if TYPE_CHECKING:
    from anyport.graph.storing import Graph

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=PARTS, name="stored")
def _stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Graph]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, shared(request.param).store(folder, StoreOptions(metadata={"name": "x", "a": "ü"}))


def feeds_of(name: str, batch: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = {"batch": batch, "sequence": 7}
    feeds: dict[str, np.ndarray] = {}
    for spec in shared(name).part.signature.inputs:
        shape = spec.shape(sizes)
        whole = spec.high is not None
        feeds[spec.name] = (
            generator.integers(0, int(spec.high or 0) + 1, shape)
            if whole
            else generator.standard_normal(shape, np.float32)
        )
    return feeds


def test_the_file_computes_what_the_module_computes(stored: tuple[str, Graph]) -> None:
    name, graph = stored
    part = shared(name).part
    for batch in (1, 2, 5):
        feeds = feeds_of(name, batch)
        answer = run_onnx(graph.path, feeds)
        with torch.no_grad():
            expected = part.module(**{n: torch.from_numpy(array) for n, array in feeds.items()})
        first = expected if isinstance(expected, Tensor) else expected[0]
        assert np.allclose(next(iter(answer.values())), first.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_plain_safetensors(stored: tuple[str, Graph]) -> None:
    name, graph = stored
    assert graph.weights is not None
    state = weights_of(shared(name).part.module)
    with safe_open(graph.weights, "np") as file:
        keys = set(file.keys())
        assert keys
        for key in keys & set(state):
            assert file.get_tensor(key).size == state[key].size
            if name in {"bert", "encoder", "vit"}:
                assert holds(file.get_tensor(key), state[key])
    own = shared(name).converted.weight_names
    tied = {"right.weight"} if name == "folding" else set()
    assert own - tied <= keys


def test_the_graph_points_into_that_file(stored: tuple[str, Graph]) -> None:
    """ONNX Runtime reads them in place: location, offset, length; the offsets are aligned for mapping."""
    name, graph = stored
    assert graph.weights is not None
    file = onnx.load(str(graph.path), load_external_data=False)
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in file.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert {place["location"] for place in places} == {"weights.safetensors"}
    size_bytes = graph.weights.stat().st_size
    assert all(int(place["offset"]) + int(place["length"]) <= size_bytes for place in places)
    assert all(int(place["offset"]) % 4 == 0 for place in places), name
    assert max(int(place["offset"]) + int(place["length"]) for place in places) == size_bytes


def test_what_the_graph_says_of_itself(stored: tuple[str, Graph]) -> None:
    _, graph = stored
    file = onnx.load(str(graph.path), load_external_data=False)
    assert {entry.key: entry.value for entry in file.metadata_props} == {"name": "x", "a": "ü"}
    assert (file.producer_name, file.producer_version) == ("anyport", __version__)
    assert graph.n_nodes == len(file.graph.node)
    assert list(graph.operators) == sorted(graph.operators)
    assert sum(graph.operators.values()) == graph.n_nodes
    assert graph.n_parameters == sum(math.prod(tensor.dims) for tensor in file.graph.initializer)
    assert not file.graph.value_info
    onnx.checker.check_model(str(graph.path), full_check=True)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("copy", self.embedding.weight.detach().clone())

    def forward(self, ids: Tensor) -> Tensor:
        answer: Tensor = self.head(self.embedding(ids)) @ self.get_buffer("copy")
        return answer


def test_tied_and_equal_weights_are_stored_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    part = part_of(Tied(), {"ids": "int64[batch] 0..39"}, {"y": "float32[batch, 16]"})
    graph = export(part).store(tmp_path)
    assert graph.weights is not None
    size_bytes = 40 * 16 * 4
    assert size_bytes <= graph.weights.stat().st_size < 2 * size_bytes
    ids = np.arange(5)
    expected = part.module(torch.from_numpy(ids)).detach().numpy()
    assert np.allclose(run_onnx(graph.path, {"ids": ids})["y"], expected, rtol=1e-4, atol=1e-5)


# ── where the weights go ────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("weights", "limit", "is_beside"),
    [("beside", 1 << 40, True), ("inside", 1, False), ("auto", 1 << 40, False), ("auto", 10_000, True)],
)
def test_inside_beside_or_as_the_size_says(
    weights: str, limit: int, is_beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "MAX_INSIDE_BYTES", limit)
    options = StoreOptions(weights)  # type: ignore[arg-type]
    graph = shared("encoder").store(tmp_path, options, "net.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["net.onnx", "net.safetensors"] if is_beside else ["net.onnx"]
    )
    assert (graph.weights is not None) is is_beside
    answer = run_onnx(graph.path, feeds_of("encoder", 2))
    assert answer["features"].shape == (2, 7, 16)


@pytest.mark.parametrize(
    ("file", "weights"),
    [("model.onnx", "weights.safetensors"), ("net.onnx", "net.safetensors"), ("a.b.onnx", "a.b.safetensors")],
)
def test_the_name_of_the_weights(file: str, weights: str) -> None:
    assert weights_name(Path("any") / file) == weights


def test_an_invalid_file_is_an_error(tmp_path: Path) -> None:
    converted = convert(shared("encoder").captured, shared("encoder").part)
    last = list(converted.model.graph)[-1]
    last.op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=r"^m\.onnx is not valid ONNX: ") as caught:
        store(converted, tmp_path / "m.onnx", StoreOptions())
    assert caught.value.do == "please report this with the model: anyport wrote the file"


def test_the_checker_runs_on_files_with_weights_beside(tmp_path: Path) -> None:
    graph = shared("encoder").store(tmp_path)
    assert graph.weights is not None
    check_file(graph.path)
    graph.weights.unlink()
    with pytest.raises(ExportError, match=r"model\.onnx is not valid ONNX: "):
        check_file(graph.path)


# ── the same bytes ──────────────────────────────────────────────────────────────────────────────────────
SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from tests.graph.exports import shared, write_all
write_all(shared("encoder"), Path(sys.argv[1]))
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """From another working folder, with another hash seed; and this process does so twice."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    place = tmp_path / "deep" / "place"
    place.mkdir(parents=True)
    (place / "run.py").write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "run.py", str(folders[0]), str(ROOT), str(ROOT / "src")]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True, timeout=300)
    for folder in folders[1:]:
        write_all(shared("encoder"), folder)
    assert list(digests(folders[0])) == ["model.onnx", "modules.json", "weights.safetensors"]
    assert digests(folders[0]) == digests(folders[1]) == digests(folders[2])


def test_an_input_with_no_weights_at_all(tmp_path: Path) -> None:
    graph = export(part_of(nn.ReLU(), {"input": X["x"]})).store(tmp_path)
    assert graph.n_parameters == 0
    assert run_onnx(graph.path, {"input": np.full((2, 8), -1, np.float32)})["y"].sum() == 0


@pytest.mark.parametrize("place", ["attribute", "branch", "initializer"])
def test_the_files_of_a_graph_are_found_wherever_its_tensors_are(place: str, tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="far.bin")
    node = onnx.helper.make_node("Constant", [], ["y"], value=tensor)
    inner = onnx.helper.make_graph([node], "inner", [], [])
    branch = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    nodes = {"attribute": [node], "branch": [branch], "initializer": []}[place]
    graph = onnx.helper.make_graph(nodes, "g", [], [], [tensor] if place == "initializer" else [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    assert files_of(tmp_path / "m.onnx") == {tmp_path / "m.onnx", tmp_path / "far.bin"}


def test_what_is_no_graph_needs_itself(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff garbage")
    assert files_of(tmp_path / "m.onnx") == {tmp_path / "m.onnx"}


def test_a_file_that_the_input_needs_is_known_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    path = tmp_path / "in" / "m.onnx"
    path.write_bytes(b"")
    with (
        pytest.raises(UsageError, match=r"^'m.onnx' would be replaced, and 'm.onnx' needs it"),
        staged_graph(path, tmp_path / "link" / "m.onnx", force=True),
    ):
        pytest.fail("the work began")


@pytest.mark.parametrize("with_shapes", [False, True])
def test_shapes_of_inner_values_stay_where_a_simplifier_worked_them_out(
    with_shapes: bool, tmp_path: Path
) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])
    inner = onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, ["n", 3])
    scale = onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [3])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])
    nodes = [
        onnx.helper.make_node("Mul", ["x", "scale"], ["inner"]),
        onnx.helper.make_node("Relu", ["inner"], ["y"]),
    ]
    weights = [onnx.numpy_helper.from_array(np.ones(3, np.float32), "scale")]
    graph = onnx.helper.make_graph(nodes, "g", [value], [answer], weights, value_info=[inner, scale])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    write_model(ir.serde.deserialize_model(model), tmp_path / "m.onnx", with_shapes=with_shapes)
    found = [one.name for one in onnx.load(tmp_path / "m.onnx").graph.value_info]
    assert found == (["inner"] if with_shapes else [])
