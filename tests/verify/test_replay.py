"""A bundle's proof, run again without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.bundle import (
    FORMAT,
    Bundle,
    GraphEntry,
    GraphFile,
    Manifest,
    ModelFacts,
    PartEntry,
    Proof,
    ProofCase,
    ProofTolerance,
    Provenance,
    RecordedFloor,
    VariantEntry,
    open_bundle,
    seal_bundle,
    write_proof,
)
from anyport.errors import BundleError, MismatchError, UsageError
from anyport.verify import RecordedReference, Status, compare, verify_bundle
from tests.verify.fakes import (
    DIMS,
    INPUTS,
    OUTPUTS,
    PART,
    FunctionSession,
    TwinReference,
    encoder,
    good,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from anyport.cases import Case

PARTS = ("encoder", "second")


def proof_case(part: str, case: Case, arrays: dict[str, np.ndarray]) -> ProofCase:
    answer = TwinReference().answer(case)
    keys = {name: f"{part}/{case.name}/{name}" for name in answer.outputs}
    arrays.update({keys[name]: array for name, array in answer.outputs.items()})
    floors = {name: RecordedFloor(one.max_abs, one.rms, one.how) for name, one in answer.floors.items()}
    return ProofCase(case.name, case.kind, dict(case.sizes), dict(case.fills), keys, floors)


def manifest() -> Manifest:
    def graphs(variant: str) -> dict[str, GraphEntry]:
        return {
            p: GraphEntry(f"parts/{p}/{variant}/model.onnx", None, None, 20, 1, {"Add": 1}, 0) for p in PARTS
        }

    part = PartEntry(
        inputs={spec.name: str(spec) for spec in INPUTS},
        outputs={spec.name: str(spec) for spec in OUTPUTS},
        dims={name: str(one) for name, one in DIMS.items()},
    )
    return Manifest(
        format=FORMAT,
        model=ModelFacts("net", "1.0.0"),
        task=None,
        settings={},
        parts=dict.fromkeys(PARTS, part),
        variants={v: VariantEntry(graphs(v), [], proven=True) for v in ("fp32", "int8")},
        default_variant="fp32",
        provenance=Provenance("net.py:load", "anyport build", {}, "x86_64", "3.11"),
        files=[],
    )


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    folder = tmp_path / "net.port"
    for part in PARTS:
        for variant in ("fp32", "int8"):
            file = folder / "parts" / part / variant / "model.onnx"
            file.parent.mkdir(parents=True)
            file.write_bytes(b"graph")
    arrays: dict[str, np.ndarray] = {}
    parts = {part: [proof_case(part, case, arrays) for case in plan().cases] for part in PARTS}
    proof = Proof(parts, ProofTolerance(8.0, 4.0), ["encoder: all largest (batch=64)", "second: other"])
    write_proof(folder, proof, arrays)
    seal_bundle(folder, manifest())
    return folder


def opener(function: Callable[..., dict[str, np.ndarray]]) -> Callable[[GraphFile], FunctionSession]:
    return lambda _: FunctionSession(function)


def test_every_part_is_replayed_and_judged_as_when_it_was_built(bundle_path: Path) -> None:
    with open_bundle(bundle_path) as bundle:
        verdicts = verify_bundle(bundle, opener(good))
    live = compare(TwinReference(), FunctionSession(good), plan(), PART)
    assert [(v.part.name, v.part.variant, v.status) for v in verdicts] == [
        ("encoder", "fp32", Status.PASS),
        ("second", "fp32", Status.PASS),
    ]
    assert verdicts[0].findings == live.findings
    assert verdicts[0].leg("power") == live.leg("power")
    assert verdicts[0].plan.dropped == ("all largest (batch=64): too large for the proof",)


def test_the_weights_leg_says_why_it_does_not_apply(bundle_path: Path) -> None:
    with open_bundle(bundle_path) as bundle:
        leg = verify_bundle(bundle, opener(good))[0].leg("weights")
    assert leg.status is Status.NOT_APPLICABLE
    assert (
        leg.line == "the weights were accounted for when the bundle was built, and every byte is sealed since"
    )


def test_one_part_of_one_variant(bundle_path: Path) -> None:
    opened: list[GraphFile] = []

    def open_graph(graph: GraphFile) -> FunctionSession:
        opened.append(graph)
        return FunctionSession(good)

    with open_bundle(bundle_path) as bundle:
        verdicts = verify_bundle(bundle, open_graph, variant="int8", part="second")
    assert [(graph.part_name, graph.variant_name) for graph in opened] == [("second", "int8")]
    assert [(v.part.name, v.part.variant) for v in verdicts] == [("second", "int8")]


def test_a_wrong_graph_fails_with_the_command_that_shows_more(bundle_path: Path) -> None:
    with open_bundle(bundle_path) as bundle:
        verdict = verify_bundle(bundle, opener(lambda feeds: encoder(feeds, eps=1e-2)))[0]
    with pytest.raises(MismatchError) as err:
        verdict.raise_if_bad()
    assert err.value.where is not None
    assert err.value.where.startswith("part encoder, variant fp32, case ")
    assert err.value.do == (
        "anyport verify net.port --part encoder --variant fp32 --json   shows every output and case"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"variant": "fp16"}, "the bundle has no variant 'fp16'"),
        ({"part": "encodr"}, "did you mean 'encoder'"),
    ],
)
def test_unknown_names(bundle_path: Path, words: dict[str, str], message: str) -> None:
    with open_bundle(bundle_path) as bundle, pytest.raises(UsageError, match=message):
        verify_bundle(bundle, opener(good), **words)


def test_sessions_are_closed_also_when_the_comparison_breaks_off(bundle_path: Path) -> None:
    closed: list[str] = []

    class Closing(FunctionSession):
        def close(self) -> None:
            closed.append("closed")

    def interrupt(_: object) -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    with open_bundle(bundle_path) as bundle:
        verify_bundle(bundle, lambda _: Closing(good))
        with pytest.raises(KeyboardInterrupt):
            verify_bundle(bundle, lambda _: Closing(interrupt))
    assert closed == ["closed"] * 3


@pytest.mark.parametrize(
    "file", ["proof/arrays.safetensors", "proof/cases.json", "parts/encoder/fp32/model.onnx"]
)
def test_a_flipped_byte_is_no_verdict(bundle_path: Path, file: str) -> None:
    content = bytearray((bundle_path / file).read_bytes())
    content[-1] ^= 1
    (bundle_path / file).write_bytes(content)

    def replay(bundle: Bundle) -> object:
        return verify_bundle(bundle, opener(good))

    with open_bundle(bundle_path) as bundle, pytest.raises(BundleError):
        replay(bundle)


def test_a_part_without_proof_is_inconclusive(bundle_path: Path) -> None:
    proof = Proof({"encoder": []}, ProofTolerance(8.0, 4.0), [])
    for name in ("cases.json", "arrays.safetensors"):
        (bundle_path / "proof" / name).unlink()
    write_proof(bundle_path, proof, {})
    seal_bundle(bundle_path, manifest())
    with open_bundle(bundle_path) as bundle:
        verdicts = verify_bundle(bundle, opener(good))
    assert [verdict.status for verdict in verdicts] == [Status.INCONCLUSIVE] * 2


def test_multiples_that_a_bundle_claims_do_not_count(bundle_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    parts = {part: [proof_case(part, case, arrays) for case in plan().cases] for part in PARTS}
    for name in ("cases.json", "arrays.safetensors"):
        (bundle_path / "proof" / name).unlink()
    write_proof(bundle_path, Proof(parts, ProofTolerance(1e30, 1e30), []), arrays)
    seal_bundle(bundle_path, manifest())
    with open_bundle(bundle_path) as bundle:
        verdicts = verify_bundle(bundle, opener(lambda feeds: encoder(feeds, eps=1e-2)))
    assert [verdict.status for verdict in verdicts] == [Status.FAIL] * 2


def test_a_case_that_is_not_recorded() -> None:
    with pytest.raises(MismatchError, match="the proof has no answer to the case 'random 1'"):
        RecordedReference([], {}).answer(plan().cases[0])
