from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from anyport.bundle import open_bundle, seal_bundle
from anyport.bundle.manifest import decode_manifest
from anyport.errors import MismatchError, SessionError, UsageError
from anyport.verify import Status, metric_line, verify_bundle
from anyport.verify.agreement import Run
from anyport.verify.tasks import different, form_of, measure_task
from tests.attacks.test_hostile_lossy_proofs import rewrite
from tests.compress.test_task_judging import Spoiled
from tests.task import blip
from tests.verify.lossy_bundles import forge, said_of
from tests.verify.task_bundles import N_SAMPLES, PARTS, exact, opener, recorded, task_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.bundle import GraphFile

Arrays = dict[str, np.ndarray]


def forgetful(found: Arrays) -> Arrays:
    return {name: np.zeros_like(array) for name, array in found.items()}


@dataclass
class Counted(Spoiled):
    """A session that counts how often it is closed."""

    n_closed: int = 0

    def close(self) -> None:
        self.n_closed += 1


@dataclass
class Opened:
    """Opens the exact parts, and knows which are still open.

    Attributes:
        fails_at: The graph that cannot be opened, counted from 1.
    """

    fails_at: int = 0
    sessions: list[Counted] = field(default_factory=list)

    def __call__(self, graph: GraphFile) -> Any:
        if len(self.sessions) + 1 == self.fails_at:
            raise SessionError("the graph cannot be opened")
        self.sessions.append(Counted(exact(graph.part_name), dict))
        return self.sessions[-1]

    @property
    def n_closed(self) -> list[int]:
        return [one.n_closed for one in self.sessions]


def test_what_is_opened_is_closed(tmp_path: Path) -> None:
    folder, opened = task_bundle(tmp_path), Opened()
    with open_bundle(folder) as bundle:
        measure_task(bundle, "int8", opened, set(PARTS))
        assert opened.n_closed == [1] * 2 * len(PARTS)
        broken = Opened(fails_at=3)
        with pytest.raises(SessionError, match="the graph cannot be opened"):
            measure_task(bundle, "int8", broken, set(PARTS))
        assert broken.n_closed == [1, 1]
    said = said_of(folder)
    seal_bundle(folder, msgspec.structs.replace(said, task="classify", files=[]))
    with open_bundle(folder) as bundle:
        strange = Opened()
        with pytest.raises(UsageError, match="the task 'classify' cannot be judged as a whole"):
            measure_task(bundle, "int8", strange, set(PARTS))
        assert strange.n_closed == [1] * len(PARTS)


def not_numbers(found: Arrays) -> Arrays:
    return {name: np.full_like(array, np.nan) for name, array in found.items()}


def test_a_graph_without_finite_numbers_fails(tmp_path: Path) -> None:
    spoiled = Spoiled(exact("text_decoder"), not_numbers)
    with open_bundle(task_bundle(tmp_path)) as bundle:
        [verdict] = verify_bundle(bundle, opener(text_decoder=spoiled), "int8", "cross_keys")
        assert verdict.status is Status.FAIL
        assert verdict.evaluation is not None
        [measure] = verdict.evaluation.measures
        assert measure.line == (
            "'tokens' top-1 agreement 0 % over 0 samples, 95 % needed: the decoder's scores are not finite"
        )

        def spoil_exact(graph: GraphFile) -> Any:
            is_bad = (graph.part_name, graph.variant_name) == ("text_decoder", "fp32")
            return spoiled if is_bad else exact(graph.part_name)

        found = measure_task(bundle, "int8", spoil_exact, {"cross_keys"})["cross_keys"]
    assert found.status is Status.FAIL
    assert found.deciding.reason == (
        "the recorded answers are not those of the exact variant fp32: the decoder's scores are not finite"
    )


def test_every_lossy_part_is_judged_by_the_task(tmp_path: Path) -> None:
    with open_bundle(task_bundle(tmp_path)) as bundle:
        bundle.check()
        verdicts = verify_bundle(bundle, opener(), "int8")
        assert [verdict.part.name for verdict in verdicts] == list(PARTS)
        for verdict in verdicts:
            assert verdict.status is Status.PASS
            assert verdict.leg("values").line == (
                f"'tokens' top-1 agreement 100 % over {N_SAMPLES} samples, 95 % needed"
            )
        metric = bundle.manifest.variants["int8"].metric
        assert metric is not None
        assert metric_line(metric) == (
            "all equal; whole task: 'tokens' top-1 agreement 100 %, 95 % needed; 64 samples, measured on avx2"
        )
        [alone] = verify_bundle(bundle, opener(), "int8", "cross_keys")
        assert alone.evaluation is not None
        opened = Opened()
        assert measure_task(bundle, "int8", opened, set()) == {}
        assert not opened.sessions


@pytest.mark.parametrize("part", ["vision_encoder", "cross_keys"])
def test_a_part_that_lost_the_picture_fails_everywhere(tmp_path: Path, part: str) -> None:
    with open_bundle(task_bundle(tmp_path)) as bundle:
        verdicts = verify_bundle(bundle, opener(**{part: Spoiled(exact(part), forgetful)}), "int8")
        assert [verdict.status for verdict in verdicts] == [Status.FAIL] * len(PARTS)
        with pytest.raises(MismatchError, match="'tokens' top-1 agreement .* it answers too differently"):
            verdicts[0].raise_if_bad()
        # nothing is wrong with the exact graphs
        assert measure_task(bundle, "int8", opener(), {part})[part].passed


def test_two_pictures_exchanged_fail(tmp_path: Path) -> None:
    """Two of 64 are less than the lossy graphs may lose, but not what the exact ones answer."""
    folder = task_bundle(tmp_path)
    _exchange(folder)
    with open_bundle(folder) as bundle:
        verdict = verify_bundle(bundle, opener(), "int8")[0]
    assert verdict.status is Status.FAIL
    with pytest.raises(MismatchError) as err:
        verdict.raise_if_bad()
    assert err.value.what.endswith("the recorded answers are not those of the exact variant fp32")


def _exchange(folder: Path) -> None:
    def change(tree: dict[str, object]) -> None:
        runs = tree["task"]["judged"]["runs"]  # type: ignore[index]
        first, second = (runs[place]["inputs"] for place in (0, 1))
        first["picture"], second["picture"] = second["picture"], first["picture"]

    forge(folder, change)


def test_tokens_that_no_exact_graph_writes_fail(tmp_path: Path) -> None:
    folder = task_bundle(tmp_path)
    changed = {f"task/{number}/{kind}" for number in (1, 2) for kind in ("input/written", "answer/tokens")}
    rewrite(folder, lambda name, array: array[:, ::-1] if name in changed else array)
    with open_bundle(folder) as bundle:
        found = measure_task(bundle, "int8", opener(), set(PARTS))["cross_keys"]
    assert found.status is Status.FAIL
    assert "not those of the exact variant fp32" in found.deciding.reason


def test_a_lax_bundle_does_not_let_the_exact_graphs_answer_otherwise(tmp_path: Path) -> None:
    """Up to one choice in 64 is another one: less than a tenth of the 20 % that the bundle allows."""
    folder = task_bundle(tmp_path)
    changed = {"task/1/input/written", "task/1/answer/tokens"}
    rewrite(folder, lambda name, array: array[:, ::-1] if name in changed else array)
    lax = {"allowance": 0.8}
    forge(folder, lambda tree: tree["task"]["judged"]["outputs"]["tokens"].update(lax), dict(lax))
    with open_bundle(folder) as bundle:
        found = measure_task(bundle, "int8", opener(), set(PARTS))["cross_keys"]
    assert [one.status for one in found.measures] == [Status.PASS, Status.FAIL]
    losses = found.measures[1].losses
    assert losses is not None
    assert 0.005 < losses.mean < 0.02


def test_an_exact_variant_that_is_not_proven_is_named(tmp_path: Path) -> None:
    folder = task_bundle(tmp_path)
    said = said_of(folder)
    fp32 = msgspec.structs.replace(said.variants["fp32"], proven=False, note="by hand")
    seal_bundle(folder, msgspec.structs.replace(said, variants=said.variants | {"fp32": fp32}, files=[]))
    words = "the exact variant fp32, which gives the recorded answers, is not proven itself"
    with open_bundle(folder) as bundle:
        assert words in verify_bundle(bundle, opener(), "int8")[0].leg("values").details
    better = said.variants | {"fp32": fp32, "other": said.variants["fp32"]}
    seal_bundle(folder, msgspec.structs.replace(said, variants=better, files=[]))
    with open_bundle(folder) as bundle:
        assert measure_task(bundle, "int8", opener(), set(PARTS))["cross_keys"].notes == ()


def test_a_picture_counts_once() -> None:
    held = recorded()
    first, second, *_ = held.runs
    twice = Run(dict(first.feeds) | {"written": second.feeds["written"]}, second.answers)
    found = different(replace(held, runs=[first, second, twice, first]))
    assert list(found.runs) == [first, second]


def test_a_bundle_without_exact_graphs_says_that_nobody_checked_the_record(tmp_path: Path) -> None:
    folder = task_bundle(tmp_path)
    said = decode_manifest((folder / "manifest.json").read_bytes())
    for part in PARTS:
        shutil.rmtree(folder / "parts" / part / "fp32")
    alone = {"int8": said.variants["int8"]}
    seal_bundle(folder, msgspec.structs.replace(said, variants=alone, default_variant="int8", files=[]))
    with open_bundle(folder) as bundle:
        verdict = verify_bundle(bundle, opener(), "int8")[0]
    assert verdict.status is Status.PASS
    words = "the bundle has no exact variant: that the recorded answers are exact is the maker's word"
    assert words in verdict.leg("values").details
    assert verdict.evaluation is not None
    assert verdict.evaluation.to_json()["notes"] == [words]


def test_a_form_is_a_signature_in_words() -> None:
    signature = blip.signature("cross_keys")
    form = form_of(signature)
    assert form.input_specs() == signature.inputs
    assert form.output_specs() == signature.outputs
    assert form.dim_ranges() == dict(signature.dims)
