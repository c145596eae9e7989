from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.bundle import open_bundle
from anyport.errors import MismatchError
from anyport.verify import Status, metric_line, verify_bundle
from anyport.verify.tasks import form_of, measure_task
from tests.attacks.test_hostile_lossy_proofs import rewrite
from tests.compress.test_task_judging import Spoiled
from tests.task import blip
from tests.verify.lossy_bundles import forge
from tests.verify.task_bundles import N_SAMPLES, PARTS, exact, opener, task_bundle

if TYPE_CHECKING:
    from pathlib import Path

Arrays = dict[str, np.ndarray]


def forgetful(found: Arrays) -> Arrays:
    return {name: np.zeros_like(array) for name, array in found.items()}


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
        assert measure_task(bundle, "int8", opener(), set()) == {}


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


def test_a_form_is_a_signature_in_words() -> None:
    signature = blip.signature("cross_keys")
    form = form_of(signature)
    assert form.input_specs() == signature.inputs
    assert form.output_specs() == signature.outputs
    assert form.dim_ranges() == dict(signature.dims)
