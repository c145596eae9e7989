"""New weights against PyTorch: the right model is loaded, and a wrong graph is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from anyport.build import build
from anyport.build.parts import PROOF_BYTES
from anyport.build.reproving import NewGraph, load_reweighted, reprove
from anyport.bundle import open_bundle
from anyport.errors import CheckpointError, MismatchError
from anyport.graph.checkpoints import open_checkpoint
from anyport.graph.derivations import read_derivations
from anyport.source import load_value
from tests.build.building import QUICK, ZOO, plan_for, silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anyport.bundle import Bundle
    from anyport.graph.checkpoints import Checkpoint
    from anyport.graph.derivations import Derivations

SOURCE = f"{ZOO / 'zoo.py'}:scores_and_choice"


@pytest.fixture(scope="module", name="bundle")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    path = tmp_path_factory.mktemp("bundle") / "m.port"
    build(plan_for("scores_and_choice", path), silent)
    with open_bundle(path) as bundle:
        yield bundle


def graph_of(bundle: Bundle) -> NewGraph:
    graph = bundle.graph_file("network")
    return NewGraph("network", "fp32", graph.path, graph.entry)


def weights(bundle: Bundle, path: Path, factor: float) -> tuple[Checkpoint, Derivations]:
    rules = read_derivations(bundle.read_bytes("parts/network/fp32/modules.json"))
    assert rules is not None
    state = load_value("zoo.py:scores_and_choice", ZOO)().state_dict()
    save_file({name: tensor * factor for name, tensor in state.items()}, path)
    return open_checkpoint(path, rules), rules


def test_the_module_gets_the_new_weights_and_the_bundles_signature(bundle: Bundle, tmp_path: Path) -> None:
    entry = bundle.manifest.parts["network"]
    part = load_reweighted(SOURCE, graph_of(bundle), entry, weights(bundle, tmp_path / "w.safetensors", 2))
    before = load_value("zoo.py:scores_and_choice", ZOO)().state_dict()
    for name, tensor in part.module.state_dict().items():
        torch.testing.assert_close(tensor, before[name] * 2, rtol=0, atol=0)
    assert {spec.name: str(spec) for spec in part.signature.outputs} == entry.outputs


def test_the_answers_become_the_proof(bundle: Bundle, tmp_path: Path) -> None:
    entry = bundle.manifest.parts["network"]
    same = weights(bundle, tmp_path / "w.safetensors", 1)
    found = reprove([graph_of(bundle)], load_reweighted(SOURCE, graph_of(bundle), entry, same), QUICK)
    assert [verdict.status.value for verdict in found.verdicts] == ["PASS"]
    assert len(found.proof.parts["network"]) > 5
    assert 0 < sum(array.nbytes for array in found.arrays.values()) <= PROOF_BYTES


def test_a_graph_with_other_weights_than_pytorch_fails(bundle: Bundle, tmp_path: Path) -> None:
    entry = bundle.manifest.parts["network"]
    other = weights(bundle, tmp_path / "w.safetensors", 1.001)
    part = load_reweighted(SOURCE, graph_of(bundle), entry, other)
    with pytest.raises(MismatchError, match="output 'scores' is off by"):
        reprove([graph_of(bundle)], part, QUICK)


def test_another_model_is_refused_by_the_name_of_a_tensor(bundle: Bundle, tmp_path: Path) -> None:
    entry, new = bundle.manifest.parts["network"], weights(bundle, tmp_path / "w.safetensors", 1)
    with pytest.raises(CheckpointError) as caught:
        load_reweighted(f"{ZOO / 'zoo.py'}:noise", graph_of(bundle), entry, new)
    assert caught.value.what == (
        f"'{ZOO / 'zoo.py'}:noise' is another model than the bundle's: only the bundle's has the tensor "
        "'layers.0.bias'"
    )
