"""What must not pass: proofs of lossy variants that were forged, and sealed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from anyport.bundle import (
    StoredArrays,
    TensorFileWriter,
    dtype_code,
    lossy,
    open_bundle,
    read_header,
    read_lossy_proof,
    read_tensor,
    seal_bundle,
)
from anyport.errors import BundleError, MismatchError
from anyport.verify import Status, verify_bundle
from tests.verify.lossy_bundles import forge, lossy_bundle, opener, said_of
from tests.verify.lossy_examples import noisy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.verify import Verdict

Tree = dict[str, Any]


def verdict_of(folder: Path) -> Verdict:
    with open_bundle(folder) as bundle:
        [verdict] = verify_bundle(bundle, opener(noisy()), variant="int8")
    return verdict


def part(tree: Tree) -> Tree:
    found: Tree = tree["parts"]["network"]
    return found


def run(tree: Tree) -> Tree:
    found: Tree = part(tree)["runs"][0]
    return found


def logits(tree: Tree) -> Tree:
    found: Tree = part(tree)["outputs"]["logits"]
    return found


HOSTILE: list[tuple[str, Callable[[Tree], object], str]] = [
    ("no runs", lambda t: part(t)["runs"].clear(), "Expected `array` of length >= 1"),
    ("many runs", lambda t: part(t).update(runs=part(t)["runs"] * 3), "Expected `array` of length <= 256"),
    ("an unknown key", lambda t: logits(t).update(allowence=0), "has an unknown key 'allowence'"),
    ("an output unjudged", lambda t: part(t)["outputs"].pop("logits"), "the outputs that it judges are not"),
    (
        "another output",
        lambda t: part(t)["outputs"].update(z=logits(t)),
        "the outputs that it judges are not",
    ),
    ("a forgotten input", lambda t: run(t)["inputs"].clear(), "has an unused array 'network/1/input/x'"),
    ("no size", lambda t: run(t)["sizes"].clear(), "run 1: it gives no size to 'batch'"),
    ("a size of 0", lambda t: run(t)["sizes"].update(batch=0), "Expected `int` >= 1"),
    ("a huge size", lambda t: run(t)["sizes"].update(batch=10**15), "run 1: 'batch' is 1000000000000000"),
    (
        "another size",
        lambda t: run(t)["sizes"].update(batch=2),
        "'x' is stored as F16[1, 8], axis 'batch' must be 2",
    ),
    (
        "the answer to another question",
        lambda t: run(t)["answers"].update(logits=run(t)["answers"]["embedding"]),
        "has an unused array 'network/1/answer/logits'",
    ),
    (
        "answers exchanged",
        lambda t: run(t)["answers"].update(
            logits=run(t)["answers"]["embedding"], embedding=run(t)["answers"]["logits"]
        ),
        "run 1: 'logits' is stored as F16[1, 8], axis '10' must be 10",
    ),
    (
        "another part",
        lambda t: t["parts"].update(other=part(t)),
        "speaks of the part 'other', which is not there",
    ),
    (
        "the part renamed",
        lambda t: t["parts"].update(other=t["parts"].pop("network")),
        "it does not judge output",
    ),
    (
        "another machine",
        lambda t: t.update(isa=["amx_int8"]),
        "its isa is \"['amx_int8']\", the manifest says",
    ),
    (
        "no room for a value",
        lambda t: logits(t).update(value=0.5),
        "had 0.5 when it was built, its own allowance",
    ),
    ("allowance NaN", lambda t: logits(t).update(allowance="nan"), "Expected `float`, got `str`"),
    ("forgives everything", lambda t: logits(t).update(allowance=0.0), "a bundle may ask for 80 % to 100 %"),
    ("forgives anything", lambda t: logits(t).update(allowance=-1e308), "a bundle may ask for 80 % to 100 %"),
    ("forgives half", lambda t: logits(t).update(allowance=0.5), "a bundle may ask for 80 % to 100 %"),
    ("an axis of the batch", lambda t: logits(t).update(axis=0), "it has no axis 0 to choose along"),
    (
        "an unknown metric",
        lambda t: logits(t).update(metric="vibes"),
        "'vibes', a metric that this anyport does not",
    ),
]


@pytest.mark.parametrize(("change", "text"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_forged_proof_is_refused(tmp_path: Path, change: Callable[[Tree], object], text: str) -> None:
    folder = lossy_bundle(tmp_path)
    forge(folder, change, {"output": "embedding", **_figures(folder, "embedding")})
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert text in str(err.value)


def _figures(folder: Path, output: str) -> dict[str, object]:
    one = msgspec.json.decode((folder / "proof" / "int8.json").read_bytes())["parts"]["network"]["outputs"][
        output
    ]
    return {name: one[name] for name in ("metric", "allowance", "value")}


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"allowance": 0.99}, "its allowance is '0.98', the manifest says '0.99'"),
        ({"metric": "psnr"}, "its metric is 'cosine', the manifest says 'psnr'"),
        ({"value": 1.0}, "the manifest says '1.0'"),
        ({"n_samples": 200}, "the proof has 128 samples, the manifest says 200"),
    ],
)
def test_the_manifest_and_the_proof_must_agree(tmp_path: Path, entry: dict[str, object], text: str) -> None:
    folder = lossy_bundle(tmp_path)
    forge(folder, lambda _: None, {"output": "embedding", **_figures(folder, "embedding"), **entry})
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert text in err.value.what


def test_json_has_no_nan(tmp_path: Path) -> None:
    folder = lossy_bundle(tmp_path)
    forge(folder, lambda _: None)
    path = folder / "proof" / "int8.json"
    content = path.read_bytes()
    said = said_of(folder)
    path.write_bytes(content.replace(b'"allowance":0.95', b'"allowance":NaN'))
    seal_bundle(folder, said)
    with pytest.raises(BundleError, match="holds NaN, which is no JSON number"):
        verdict_of(folder)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    for name in ("int8.json", "int8.safetensors"):
        folder = lossy_bundle(tmp_path / name)
        said = said_of(folder)
        (folder / "proof" / name).unlink()
        with pytest.raises(
            BundleError, match=f"variant int8 is lossy, and 'proof/{name}' is not among its files"
        ):
            seal_bundle(folder, said)


def rewrite(folder: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> None:
    """Exchange arrays of the proof, and seal anew."""
    path = folder / "proof" / "int8.safetensors"
    arrays = {name: change(name, read_tensor(path, entry)) for name, entry in read_header(path).items()}
    path.unlink()
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    with TensorFileWriter(path, [(n, dtype_code(arrays[n].dtype), arrays[n].shape) for n in order]) as writer:
        for name in order:
            writer.write(name, arrays[name])
    forge(folder, lambda _: None)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda n, a: a.astype(np.float64) if n.endswith("1/input/x") else a, "'x' is stored as F64[1, 8]"),
        (
            lambda n, a: a.astype(np.int8) if n.endswith("1/input/x") else a,
            "stored as I8[1, 8], which is no float32",
        ),
        (
            lambda n, a: a[:, :4] if n.endswith("1/input/x") else a,
            "'x' is stored as F16[1, 4], axis '8' must be 8",
        ),
        (lambda n, a: a[0] if n.endswith("1/answer/logits") else a, "'logits' is stored as F16[10], must be"),
        (lambda n, a: a[:0] if n.endswith("1/answer/logits") else a, "F16[0, 10], axis 'batch' must be 1"),
    ],
)
def test_arrays_of_other_forms_are_refused(
    tmp_path: Path, change: Callable[[str, np.ndarray], np.ndarray], text: str
) -> None:
    folder = lossy_bundle(tmp_path)
    rewrite(folder, change)
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert text in err.value.what


def test_exact_answers_that_are_nan_prove_nothing(tmp_path: Path) -> None:
    folder = lossy_bundle(tmp_path)
    rewrite(folder, lambda n, a: a * np.float16(np.nan) if n.endswith("answer/embedding") else a)
    with pytest.raises(MismatchError, match="the exact answer 'embedding' is NaN or infinite in run 1"):
        verdict_of(folder)


def test_one_sample_many_times_is_inconclusive(tmp_path: Path) -> None:
    folder = lossy_bundle(tmp_path)
    path = folder / "proof" / "int8.safetensors"
    first = {n.rpartition("/")[2]: read_tensor(path, e) for n, e in read_header(path).items() if "/1/" in n}
    rewrite(folder, lambda n, _: first[n.rpartition("/")[2]])
    verdict = verdict_of(folder)
    assert verdict.status is Status.INCONCLUSIVE
    with pytest.raises(MismatchError, match="too much alike"):
        verdict.raise_if_bad()


def test_few_samples_are_inconclusive(tmp_path: Path) -> None:
    folder = lossy_bundle(tmp_path)
    path = folder / "proof" / "int8.safetensors"
    kept = {n: read_tensor(path, e) for n, e in read_header(path).items() if int(n.split("/")[1]) <= 20}
    path.unlink()
    with TensorFileWriter(path, [(n, dtype_code(a.dtype), a.shape) for n, a in kept.items()]) as writer:
        for name, array in kept.items():
            writer.write(name, array)
    forge(folder, lambda t: part(t).update(runs=part(t)["runs"][:20]), {"n_samples": 20})
    with pytest.raises(MismatchError, match="20 samples say too little, 64 are needed"):
        verdict_of(folder).raise_if_bad()


def test_a_huge_peak_does_not_make_everything_equal(tmp_path: Path) -> None:
    folder = lossy_bundle(tmp_path)
    forge(
        folder,
        lambda t: logits(t).update(metric="psnr", peak=1e30, allowance=30.0, value=100.0),
        {"output": "embedding", **_figures(folder, "embedding")},
    )
    assert verdict_of(folder).status is Status.INCONCLUSIVE


def test_a_lossy_graph_that_is_called_exact_fails(tmp_path: Path) -> None:
    folder = lossy_bundle(tmp_path)
    forge(folder, lambda t: t["parts"].update(network=part(t)))
    said = said_of(folder)
    exact = said.variants | {"int8": msgspec.structs.replace(said.variants["int8"], metric=None)}
    seal_bundle(folder, msgspec.structs.replace(said, variants=exact))
    with open_bundle(folder) as bundle:
        [verdict] = verify_bundle(bundle, opener(noisy(0.02, 0.02)), variant="int8")
    assert verdict.status is Status.FAIL


def test_a_run_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an array was read")

    folder = lossy_bundle(tmp_path)
    monkeypatch.setattr(lossy, "MAX_RUN_BYTES", 4 * (8 + 10 + 8) - 1)
    monkeypatch.setattr(StoredArrays, "__getitem__", refuse)
    with open_bundle(folder) as bundle, pytest.raises(BundleError) as err:
        read_lossy_proof(bundle, "int8")
    assert err.value.what == "proof/int8.json: part network: run 1: it has 104 bytes, at most 103 are read"
