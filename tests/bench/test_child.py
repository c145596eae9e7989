"""What a child process does, done here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from anyport.bench.child import Answer, Order, answer_order, graph_subject, open_graph
from anyport.bench.inputs import bench_case
from anyport.bundle import open_bundle
from anyport.cases import Normal
from anyport.tensors import Signature, tensor
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

X = tensor("x", "float32[batch, 3]")


def order(subject: dict[str, Any], **changes: Any) -> Order:
    case = bench_case(Signature((X,), ()), {"batch": 2})
    words: dict[str, Any] = {"subject": subject, "n_threads": 1, "inputs": {"x": str(X)}}
    return Order(**(words | {"sizes": dict(case.sizes), "fills": dict(case.fills)} | changes))


def test_an_order_survives_json(tmp_path: Path) -> None:
    asked = order(graph_subject(networks.affine(tmp_path / "a.onnx")))
    assert msgspec.json.decode(msgspec.json.encode(asked), type=Order) == asked


def test_a_plain_file_is_opened_and_run(tmp_path: Path) -> None:
    found = answer_order(order(graph_subject(networks.affine(tmp_path / "a.onnx"))), open_graph)
    assert found.load_s is not None
    assert found.load_s > 0
    assert found.why == "" or found.peak_bytes is None


def test_a_bundles_graph_keeps_its_ranges(tmp_path: Path) -> None:
    with open_bundle(networks.corners_bundle(tmp_path)) as bundle:
        subject = msgspec.json.decode(msgspec.json.encode(graph_subject(bundle.graph_file("network"))))
        assert open_graph(subject, 1).inputs == bundle.manifest.parts["network"].input_specs()
        spec = tensor("pixel_values", "float32[batch, 1, 2, 2]")
        inputs = {"inputs": {spec.name: str(spec)}, "fills": {spec.name: Normal(1)}}
        assert answer_order(order(subject, **inputs), open_graph).load_s
        late = answer_order(order(subject, sizes={"batch": 65}, **inputs), open_graph)
    assert late == Answer(None, None, "input 'pixel_values' has batch = 65, the model takes 1..64")


def test_what_does_not_open_is_an_answer(tmp_path: Path) -> None:
    found = answer_order(order(graph_subject(tmp_path / "absent.onnx")), open_graph)
    assert found == Answer(None, None, f"there is no file {tmp_path / 'absent.onnx'}")
