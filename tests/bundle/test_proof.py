from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from anyport.bundle import (
    TensorFileWriter,
    answers_of,
    case_of,
    open_arrays,
    open_bundle,
    read_proof,
    seal_bundle,
    write_proof,
)
from anyport.bundle.proof import _fits, index_in_whole, sample_of
from anyport.cases import Constant, Normal, Padding, Stored, Uniform, make_array
from anyport.errors import BundleError
from tests.bundle.examples import make_bundle, make_manifest, make_proof

if TYPE_CHECKING:
    from anyport.bundle import Proof, ProofCase


def with_case(changes: dict[str, Any]) -> Proof:
    """Return the example's proof with another second case."""
    proof, _ = make_proof()
    first, second = proof.parts["network"]
    return msgspec.structs.replace(
        proof, parts={"network": [first, msgspec.structs.replace(second, **changes)]}
    )


def put(folder: Path, proof: Proof, arrays: dict[str, np.ndarray]) -> None:
    for path in (folder / "proof").iterdir():
        path.unlink()
    write_proof(folder, proof, arrays)
    seal_bundle(folder, make_manifest())


def test_writing_then_reading_gives_the_same(tmp_path: Path) -> None:
    proof, arrays = make_proof()
    with open_bundle(make_bundle(tmp_path / "m.port")) as bundle:
        assert read_proof(bundle) == proof
        stored = open_arrays(bundle)
        assert sorted(stored) == sorted(arrays)
        assert len(stored) == 3
        assert all(np.array_equal(stored[key], arrays[key]) for key in arrays)


def test_cases_make_their_inputs_and_answers(tmp_path: Path) -> None:
    _, arrays = make_proof()
    specs = make_manifest().parts["network"].input_specs()
    with open_bundle(make_bundle(tmp_path / "m.port")) as bundle:
        stored = open_arrays(bundle)
        given, made = read_proof(bundle).parts["network"]
        assert np.array_equal(case_of(given, stored).arrays(specs)["x"], arrays["x1"])
        assert case_of(made, stored).arrays(specs)["x"].shape == (3, 2)
        assert np.array_equal(answers_of(made, stored)["y"], arrays["y3"])


def test_the_same_proof_gives_the_same_bytes(tmp_path: Path) -> None:
    proof, arrays = make_proof()
    for name, order in (("a", arrays), ("b", dict(reversed(arrays.items())))):
        (tmp_path / name).mkdir()
        write_proof(tmp_path / name, proof, order)
    for name in ("cases.json", "arrays.safetensors"):
        assert (tmp_path / "a/proof" / name).read_bytes() == (tmp_path / "b/proof" / name).read_bytes()


def test_arrays_are_those_that_cases_name(tmp_path: Path) -> None:
    proof, arrays = make_proof()
    with pytest.raises(BundleError, match="^proof/arrays.safetensors has an unused array 'z'"):
        write_proof(tmp_path, proof, {**arrays, "z": np.zeros(1)})
    del arrays["y3"]
    with pytest.raises(BundleError, match="^proof/arrays.safetensors lacks array 'y3'"):
        write_proof(tmp_path, proof, arrays)


def test_a_floor_is_a_number(tmp_path: Path) -> None:
    proof, arrays = make_proof()
    bad = msgspec.structs.replace(proof.parts["network"][0].floors["y"], rms=float("nan"))
    case: ProofCase = msgspec.structs.replace(proof.parts["network"][0], floors={"y": bad})
    with pytest.raises(
        BundleError, match="^proof/cases.json is not understood: Expected `float`, got `null`"
    ):
        write_proof(tmp_path, msgspec.structs.replace(proof, parts={"network": [case]}), arrays)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sizes": {"batch": 65}}, "'batch' is 65, the part takes 1..64"),
    ({"sizes": {}}, "it gives no size to 'batch'"),
    ({"fills": {"z": Normal(1)}}, "its inputs are not those of the part"),
    ({"outputs": {"z": "y3"}}, "its outputs are not those of the part"),
    ({"fills": {"x": Stored("y3")}}, "input 'x' is stored as F32[3, 10]"),
    ({"outputs": {"y": "x1"}}, "output 'y' is stored as F32[1, 2], the part gives float32[batch, 10]"),
    ({"fills": {"x": Constant(1e39)}}, "input 'x' is made of values that float32 does not have"),
    ({"fills": {"x": Normal(1, 1e38)}}, "input 'x' is made of values that float32 does not have"),
    ({"fills": {"x": Uniform(1, 2, 1)}}, "input 'x' is made of values that float32 does not have"),
    (
        {"fills": {"x": Uniform(1, -1.5e308, 1.5e308)}},
        "input 'x' is made of values that float32 does not have",
    ),
]


@pytest.mark.parametrize(("changes", "text"), WRONG)
def test_a_case_fits_its_part(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    folder = make_bundle(tmp_path / "m.port")
    _, arrays = make_proof()
    proof = with_case(changes)
    used = {"x1", "y1", *proof.parts["network"][1].outputs.values()}
    put(folder, proof, {key: array for key, array in arrays.items() if key in used or "y3" in str(changes)})
    with open_bundle(folder) as bundle, pytest.raises(BundleError) as caught:
        read_proof(bundle)
    assert caught.value.what == f"proof/cases.json: case 'batch=3' of part network: {text}"


SAMPLED: list[tuple[dict[str, Any], tuple[int, ...], str]] = [
    ({"y": [3, 10]}, (8,), ""),
    ({"z": [3, 10]}, (8,), "it samples 'z', which is no output"),
    (
        {"y": [3, 9]},
        (8,),
        "output 'y' is a sample of [3, 9], stored as F32[8], the part gives float32[batch, 10]",
    ),
    ({"y": [3]}, (2,), "output 'y' is a sample of [3], stored as F32[2], the part gives float32[batch, 10]"),
    ({"y": [3, 10]}, (30,), "output 'y' is a sample of [3, 10], stored as F32[30], the part gives"),
    ({"y": [3, 10]}, (0,), "output 'y' is a sample of [3, 10], stored as F32[0], the part gives"),
    ({"y": [3, 10]}, (3, 10), "output 'y' is a sample of [3, 10], stored as F32[3, 10], the part gives"),
]


@pytest.mark.parametrize(("shapes", "stored", "text"), SAMPLED)
def test_a_sample_belongs_to_an_output_and_is_smaller(
    shapes: dict[str, Any], stored: tuple[int, ...], text: str, tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "m.port")
    _, arrays = make_proof()
    put(folder, with_case({"shapes": shapes}), arrays | {"y3": np.zeros(stored, np.float32)})
    with open_bundle(folder) as bundle:
        if not text:
            assert read_proof(bundle).parts["network"][1].shapes == shapes
            return
        with pytest.raises(BundleError) as caught:
            read_proof(bundle)
    assert caught.value.what.startswith(f"proof/cases.json: case 'batch=3' of part network: {text}")


@pytest.mark.parametrize("shape", [(10,), (2, 5), (7, 3, 5), (1, 1000)])
@pytest.mark.parametrize("n_elements", [1, 4, 7, 10])
def test_a_sample_is_spread_evenly(shape: tuple[int, ...], n_elements: int) -> None:
    size = int(np.prod(shape))
    found = sample_of(np.arange(size).reshape(shape), n_elements)
    assert found.tolist() == [i * size // n_elements for i in range(n_elements)]


def test_whole_types_take_whole_ranges() -> None:
    assert _fits(255, "uint8")
    assert not _fits(256, "uint8")
    assert not _fits(2.0**63, "int64")
    assert _fits(1.0, "bool")
    assert not _fits(2.0, "bool")
    assert not _fits(float("inf"), "float64")


def test_the_generators_of_the_specification_are_ours() -> None:
    text = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    spec: dict[str, Any] = {}
    exec(block, spec)  # noqa: S102 - our own page; its assertions are half of the test
    shape = (2, 3)
    for seed in (0, 7, 2**63 + 5):
        normal = make_array(Normal(seed, 1.5), shape, "float64").ravel()
        assert normal.tolist() == [spec["normal"](seed, i, 1.5) for i in range(6)]
        whole = make_array(Uniform(seed, -5, 9), shape, "int32").ravel()
        assert whole.tolist() == [-5 + spec["word"](seed, i) % 15 for i in range(6)]
        real = make_array(Uniform(seed, -5, 9), shape, "float64").ravel()
        assert real.tolist() == [-5 + spec["unit"](seed, i) * 14 for i in range(6)]
        rows = make_array(Padding(seed, left=True), (3, 4), "int64")
        assert rows.tolist() == [
            [0] * (3 - n) + [1] * (1 + n) for n in (spec["word"](seed, i) % 4 for i in range(3))
        ]
    words = [f"0x{word:08x}" for word in make_array(Normal(7), (3,), "float32").view(np.uint32)]
    words += [f"0x{word:08x}" for word in make_array(Uniform(7, -1, 1), (3,), "float32").view(np.uint32)]
    assert all(f"`{' '.join(words[n : n + 3])}`" in text.replace("\n", " ") for n in (0, 3))


def test_other_parts_and_double_names_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    proof, arrays = make_proof()
    put(folder, msgspec.structs.replace(proof, parts={"other": proof.parts["network"]}), arrays)
    with (
        open_bundle(folder) as bundle,
        pytest.raises(BundleError, match="speaks of the part 'other', which is not"),
    ):
        read_proof(bundle)
    put(folder, with_case({"name": "given 1"}), arrays)
    with (
        open_bundle(folder) as bundle,
        pytest.raises(BundleError, match="two cases of part network have one name"),
    ):
        read_proof(bundle)


@pytest.mark.parametrize(
    ("names", "text"),
    [(("x1", "y1"), "lacks array 'y3'"), (("x1", "y1", "y3", "z"), "has an unused array 'z'")],
)
def test_a_sealed_proof_with_other_arrays_is_refused(
    tmp_path: Path, names: tuple[str, ...], text: str
) -> None:
    folder = make_bundle(tmp_path / "m.port")
    arrays = {**make_proof()[1], "z": np.zeros(1, np.float32)}
    (folder / "proof" / "arrays.safetensors").unlink()
    forms = [(name, "F32", arrays[name].shape) for name in names]
    with TensorFileWriter(folder / "proof" / "arrays.safetensors", forms) as writer:
        for name in names:
            writer.write(name, arrays[name])
    seal_bundle(folder, make_manifest())
    with open_bundle(folder) as bundle, pytest.raises(BundleError) as caught:
        read_proof(bundle)
    assert caught.value.what == f"proof/arrays.safetensors {text}"


def test_a_case_too_large_to_make_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    part = make_manifest().parts["network"]
    huge = msgspec.structs.replace(part, inputs={"x": "float32[batch, 99999999999]"})
    seal_bundle(folder, msgspec.structs.replace(make_manifest(), parts={"network": huge}))
    with open_bundle(folder) as bundle, pytest.raises(BundleError, match="too large to make"):
        read_proof(bundle)


def test_a_bundle_without_proof_says_so(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    for path in (folder / "proof").iterdir():
        path.unlink()
    (folder / "proof").rmdir()
    seal_bundle(folder, make_manifest())
    with (
        open_bundle(folder) as bundle,
        pytest.raises(BundleError, match="^the bundle has no file 'proof/cases.json'"),
    ):
        read_proof(bundle)


@pytest.mark.parametrize("shape", [(7,), (2, 5), (3, 1, 4), (1, 2, 3, 5)])
def test_an_element_of_a_sample_is_found_in_the_whole(shape: tuple[int, ...]) -> None:
    whole = np.arange(np.prod(shape)).reshape(shape)
    for n in range(1, whole.size + 1):
        sample = sample_of(whole, n)
        assert [whole[index_in_whole(i, n, shape)] for i in range(n)] == sample.tolist()
