"""The proof of a lossy variant: written, read, and held against the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from anyport.bundle import (
    FileEntry,
    LossyPart,
    LossyProof,
    LossyRun,
    MetricEntry,
    OutputMetric,
    decode_manifest,
    encode_manifest,
    open_bundle,
    read_lossy_proof,
    seal_bundle,
    write_lossy_proof,
)
from anyport.bundle.lossy import widens
from anyport.bundle.manifest import lossy_files
from anyport.errors import BundleError, UsageError
from tests.bundle.examples import fill_folder, make_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.bundle import Manifest

ARRAYS = {
    "x": np.ones((1, 2), np.float16),
    "y": np.arange(10, dtype=np.float32).reshape(1, 10),
}
PROOF = LossyProof(
    {
        "network": LossyPart(
            {"y": OutputMetric("top-1", 0.95, 0.99)}, [LossyRun({"batch": 1}, {"x": "x"}, {"y": "y"})]
        )
    },
    ["avx2"],
)
ENTRY = MetricEntry("network", "y", "top-1", 0.99, 0.95, 1, ["avx2"], "accuracy 99 % -> 99 %")


def with_int8(entry: MetricEntry | None, name: str = "int8") -> Manifest:
    said = make_manifest()
    int8 = msgspec.structs.replace(said.variants["fp32"], metric=entry)
    return msgspec.structs.replace(said, variants=said.variants | {name: int8})


def bundle_at(folder: Path, proof: LossyProof = PROOF, entry: MetricEntry | None = ENTRY) -> Path:
    folder.mkdir()
    fill_folder(folder)
    write_lossy_proof(folder, "int8", proof, ARRAYS)
    seal_bundle(folder, with_int8(entry))
    return folder


def test_round_trip(tmp_path: Path) -> None:
    with open_bundle(bundle_at(tmp_path / "m.port")) as bundle:
        assert bundle.manifest.variants["int8"].metric == ENTRY
        proof, arrays = read_lossy_proof(bundle, "int8")
        assert proof == PROOF
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[key], array)


def test_golden_bytes(tmp_path: Path) -> None:
    write_lossy_proof(tmp_path, "int8", PROOF, ARRAYS)
    assert (
        (tmp_path / "proof" / "int8.json").read_text()
        == """{
 "parts": {
  "network": {
   "outputs": {
    "y": {
     "metric": "top-1",
     "allowance": 0.95,
     "value": 0.99,
     "axis": -1,
     "peak": null
    }
   },
   "runs": [
    {
     "sizes": {
      "batch": 1
     },
     "inputs": {
      "x": "x"
     },
     "answers": {
      "y": "y"
     }
    }
   ]
  }
 },
 "isa": [
  "avx2"
 ]
}
"""
    )


@pytest.mark.parametrize("name", ["cases", "Arrays", "task"])
def test_the_names_of_the_exact_proof_are_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        BundleError, match=f"^a lossy variant cannot be called '{name}', as the exact proof is"
    ):
        write_lossy_proof(tmp_path, name, PROOF, ARRAYS)
    fill_folder(tmp_path)
    with pytest.raises(BundleError, match="a lossy variant cannot be called"):
        seal_bundle(tmp_path, with_int8(ENTRY, name))


@pytest.mark.parametrize("name", ["../x", "a/b", ""])
def test_a_variant_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="is no name for a variant"):
        write_lossy_proof(tmp_path, name, PROOF, ARRAYS)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": ARRAYS["x"]}, "proof/int8.safetensors lacks array 'y'"),
        ({**ARRAYS, "z": ARRAYS["x"]}, "proof/int8.safetensors has an unused array 'z'"),
    ],
)
def test_arrays_and_words_belong_together(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(BundleError) as err:
        write_lossy_proof(tmp_path, "int8", PROOF, arrays)
    assert err.value.what == text
    assert not (tmp_path / "proof").exists()


def test_an_array_is_in_one_place(tmp_path: Path) -> None:
    [run] = PROOF.parts["network"].runs
    part = msgspec.structs.replace(PROOF.parts["network"], runs=[run, run])
    with pytest.raises(BundleError) as err:
        write_lossy_proof(tmp_path, "int8", LossyProof({"network": part}, []), ARRAYS)
    assert err.value.what == "proof/int8.safetensors uses twice the array 'x'"
    assert not (tmp_path / "proof").exists()


def test_numbers_that_are_none_are_not_written(tmp_path: Path) -> None:
    outputs = {"y": OutputMetric("top-1", float("nan"), 0.99)}
    part = msgspec.structs.replace(PROOF.parts["network"], outputs=outputs)
    with pytest.raises(BundleError, match=r"^proof/int8.json is not understood"):
        write_lossy_proof(tmp_path, "int8", LossyProof({"network": part}, []), ARRAYS)


def test_only_lossy_variants_have_such_a_proof(tmp_path: Path) -> None:
    with open_bundle(bundle_at(tmp_path / "m.port")) as bundle:
        with pytest.raises(UsageError, match=r"^'fp32' is no lossy variant \(known: 'int8'\)"):
            read_lossy_proof(bundle, "fp32")
        with pytest.raises(UsageError, match=r"^'int4' is no lossy variant \(did you mean 'int8'\?\)"):
            read_lossy_proof(bundle, "int4")


@pytest.mark.parametrize(("part", "output"), [("other", "y"), ("network", "z")])
def test_the_metric_is_of_an_output_that_is_there(tmp_path: Path, part: str, output: str) -> None:
    entry = msgspec.structs.replace(ENTRY, part=part, output=output)
    with pytest.raises(BundleError, match=f"is of output '{output}' of part '{part}', which is not there"):
        bundle_at(tmp_path / "m.port", entry=entry)


@pytest.mark.parametrize(
    ("part", "output", "text"),
    [
        ("", "", "the metric of variant int8 names no output"),
        ("network", "", "the metric of variant int8 names no output"),
        ("", "y", "the metric of variant int8 is of the whole task, and there is none"),
    ],
)
def test_the_metric_of_a_task_needs_one(tmp_path: Path, part: str, output: str, text: str) -> None:
    fill_folder(tmp_path)
    write_lossy_proof(tmp_path, "int8", PROOF, ARRAYS)
    said = with_int8(msgspec.structs.replace(ENTRY, part=part, output=output))
    with pytest.raises(BundleError) as err:
        seal_bundle(tmp_path, msgspec.structs.replace(said, task=None))
    assert err.value.what == f"manifest.json: {text}"


def test_a_bundle_without_the_field_is_read_as_exact() -> None:
    said = make_manifest()
    assert said.variants["fp32"].metric is None
    lossless = msgspec.json.decode(encode_manifest(msgspec.structs.replace(said, files=_files(said))))
    del lossless["variants"]["fp32"]["metric"]
    assert decode_manifest(msgspec.json.encode(lossless)).variants["fp32"].metric is None


def _files(said: Manifest) -> list[FileEntry]:
    graph = said.variants["fp32"].graphs["network"]
    return [
        FileEntry(path, 1, "0" * 64)
        for path in sorted(p for p in (graph.file, graph.weights, graph.modules) if p)
    ]


@pytest.mark.parametrize(
    ("code", "dtype", "does"),
    [
        ("F16", "float32", True),
        ("F32", "float32", True),
        ("F32", "float16", False),
        ("F64", "float32", False),
        ("U8", "int64", True),
        ("U8", "int8", False),
        ("I32", "int64", True),
        ("I64", "float32", False),
        ("F16", "int64", False),
        ("BOOL", "bool", True),
        ("BOOL", "int64", False),
        ("BF16", "float32", False),
        ("F8_E4M3", "uint8", False),
    ],
)
def test_what_can_be_widened(code: str, dtype: str, does: bool) -> None:
    assert widens(code, dtype) is does


def test_the_files_of_a_variant() -> None:
    assert lossy_files("int8") == ("proof/int8.json", "proof/int8.safetensors")
