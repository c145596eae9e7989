"""What the build measured of a lossy variant becomes its proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from anyport.bundle import MetricEntry, open_bundle, read_lossy_proof
from anyport.errors import BundleError, MismatchError
from anyport.verify import (
    Evaluated,
    Psnr,
    Recording,
    UserMetric,
    evaluate,
    metric_line,
    write_evaluated,
)
from anyport.verify.lossy import recording_of
from tests.verify.lossy_bundles import ISA, lossy_bundle
from tests.verify.lossy_examples import SIGNATURE, noisy, recording

if TYPE_CHECKING:
    from pathlib import Path


def test_the_proof_holds_what_was_measured(tmp_path: Path) -> None:
    held = recording()
    evaluation = evaluate(held, noisy(0.02, 0.02))
    with open_bundle(lossy_bundle(tmp_path)) as bundle:
        proof, arrays = read_lossy_proof(bundle, "int8")
        entry = bundle.manifest.variants["int8"].metric
        again = recording_of(proof.parts["network"], arrays, SIGNATURE, 128, "here")
        assert again.metrics == held.metrics
        for one, two in zip(again.runs, held.runs, strict=True):
            for name in two.answers:
                np.testing.assert_array_equal(one.answers[name], two.answers[name])
            np.testing.assert_array_equal(one.feeds["x"], two.feeds["x"])
    assert entry == MetricEntry(
        "network",
        evaluation.deciding.output,
        evaluation.deciding.word,
        evaluation.deciding.value,
        evaluation.deciding.allowance,
        128,
        list(ISA),
    )
    assert entry.metric == proof.parts["network"].outputs[entry.output].metric
    assert proof.isa == list(ISA)


def test_two_builds_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        lossy_bundle(tmp_path / name)
    for file in ("proof/int8.json", "proof/int8.safetensors", "manifest.json"):
        assert (tmp_path / "a/net.port" / file).read_bytes() == (tmp_path / "b/net.port" / file).read_bytes()


def test_what_failed_is_not_written(tmp_path: Path) -> None:
    held = recording()
    failed = Evaluated(held, evaluate(held, noisy(logits=3.0)))
    with pytest.raises(MismatchError, match="'logits' top-1 agreement") as err:
        write_evaluated(tmp_path, "int8", {"network": failed}, ISA)
    assert err.value.where == "part network, variant int8"
    assert not list(tmp_path.iterdir())


def test_the_words_of_a_user_metric_are_kept(tmp_path: Path) -> None:
    held = recording()
    user = UserMetric("evaluate.py:accuracy", lambda _: 0.0).compare(0.989, 0.988)
    entry = write_evaluated(
        tmp_path, "int8", {"network": Evaluated(held, evaluate(held, noisy(), user))}, ISA
    )
    assert entry.note == "accuracy 98.9 % -> 98.8 %"
    assert metric_line(entry).startswith("accuracy 98.9 % -> 98.8 %; '")
    assert metric_line(entry).endswith("; 128 samples, measured on avx2, avx512_vnni")


def test_the_line_of_a_metric_that_is_not_known() -> None:
    entry = MetricEntry("network", "y", "lpips", 0.25, 0.5, 64, [])
    assert (
        metric_line(entry) == "'y' lpips 0.25, 0.5 needed; 64 samples, measured on a processor without a name"
    )


def test_a_peak_is_kept(tmp_path: Path) -> None:
    held = recording()
    held = Recording(held.signature, {**held.metrics, "embedding": Psnr(peak=20.0)}, held.runs)
    evaluation = evaluate(held, noisy())
    write_evaluated(tmp_path, "int8", {"network": Evaluated(held, evaluation)}, ISA)
    assert b'"peak": 20.0' in (tmp_path / "proof" / "int8.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"metric": "lpips"},
            "output 'logits' is judged by 'lpips', a metric that this anyport does not know",
        ),
        (
            {"allowance": 0.0},
            "output 'logits' may have a top-1 agreement of 0: a bundle may ask for 80 % to 100 %",
        ),
        ({"allowance": 0.79}, "output 'logits' may have a top-1 agreement of 0.79: a bundle may ask for"),
        ({"allowance": -1e300}, "output 'logits' may have a top-1 agreement of -1e+300"),
        ({"allowance": 1.1}, "output 'logits' may have a top-1 agreement of 1.1"),
        ({"axis": 0}, "output 'logits' is float32[batch, 10]: it has no axis 0 to choose along"),
        ({"axis": 2}, "it has no axis 2 to choose along"),
        ({"metric": "psnr", "allowance": 30.0, "peak": 0.0}, "output 'logits' has a peak of 0.0"),
        ({"metric": "psnr", "allowance": 30.0, "peak": -1.0}, "output 'logits' has a peak of -1.0"),
    ],
)
def test_a_proof_that_asks_for_too_little_is_refused(
    tmp_path: Path, change: dict[str, object], text: str
) -> None:

    with open_bundle(lossy_bundle(tmp_path)) as bundle:
        proof, arrays = read_lossy_proof(bundle, "int8")
        part = proof.parts["network"]
        outputs = part.outputs | {"logits": msgspec.structs.replace(part.outputs["logits"], **change)}
        with pytest.raises(BundleError) as err:
            recording_of(msgspec.structs.replace(part, outputs=outputs), arrays, SIGNATURE, 128, "here")
    assert text in err.value.what


def test_fewer_samples_than_declared_are_refused(tmp_path: Path) -> None:
    with open_bundle(lossy_bundle(tmp_path)) as bundle:
        proof, arrays = read_lossy_proof(bundle, "int8")
        with pytest.raises(BundleError, match="^the proof has 128 samples, the manifest says 129"):
            recording_of(proof.parts["network"], arrays, SIGNATURE, 129, "here")


def test_an_evaluation_that_is_inconclusive_may_be_written(tmp_path: Path) -> None:
    held = recording(20)
    evaluation = evaluate(held, noisy())
    entry = write_evaluated(tmp_path, "int8", {"network": Evaluated(held, evaluation)}, ISA)
    assert entry.n_samples == 20
