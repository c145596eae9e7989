"""The proof of a whole task: written, read, and held against the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from anyport.bundle import open_bundle, seal_bundle
from anyport.bundle.task_proof import (
    MAX_TASK_BYTES,
    TaskCase,
    TaskProof,
    has_task_proof,
    read_task_proof,
    write_task_proof,
)
from anyport.errors import BundleError
from tests.bundle.examples import fill_folder, make_manifest

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {
    "in": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "noise": np.ones((1, 2), np.float32),
    "out": np.full((2, 4, 3), 0.5, np.float32),
    "states": np.ones(3, np.float32),
}
CASE = TaskCase(
    "one", {"instruction": "把", "guidance": 2.5, "steps": 4}, ["in"], {"latents": "noise"}, "out"
)
PROOF = TaskProof("edit", [msgspec.structs.replace(CASE, between={"network": "states"})])


def bundle_at(folder: Path, proof: TaskProof = PROOF) -> Path:
    folder.mkdir()
    fill_folder(folder)
    write_task_proof(folder, proof, ARRAYS)
    seal_bundle(folder, msgspec.structs.replace(make_manifest(), task="edit", files=[]))
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with open_bundle(bundle_at(tmp_path / "m.port")) as bundle:
        assert has_task_proof(bundle)
        proof, arrays = read_task_proof(bundle)
        assert proof == PROOF
        assert {key: arrays[key].tolist() for key in arrays} == {k: a.tolist() for k, a in ARRAYS.items()}


def test_the_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (bundle_at(tmp_path / name) for name in ("a.port", "b.port"))
    for name in ("task.json", "task.safetensors"):
        assert (first / "proof" / name).read_bytes() == (second / "proof" / name).read_bytes()


def test_a_bundle_may_be_without_it(tmp_path: Path) -> None:
    folder = tmp_path / "m.port"
    folder.mkdir()
    fill_folder(folder)
    seal_bundle(folder, make_manifest())
    with open_bundle(folder) as bundle:
        assert not has_task_proof(bundle)
        with pytest.raises(BundleError) as caught:
            read_task_proof(bundle)
    assert "the bundle has no file 'proof/task.json'" in caught.value.what


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({name: ARRAYS[name] for name in ("in", "noise", "out")}, "lacks array 'states'"),
        (ARRAYS | {"more": ARRAYS["noise"]}, "has an unused array 'more'"),
        (ARRAYS | {"in": ARRAYS["out"]}, "'in' is stored as F32[2, 4, 3], must be U8"),
        (ARRAYS | {"out": ARRAYS["out"][..., :1]}, "'out' is stored as F32[2, 4, 1], no picture"),
        (ARRAYS | {"noise": np.zeros(MAX_TASK_BYTES // 4, np.float32)}, "at most 20000000 are read"),
    ],
)
def test_what_cannot_be_read_is_not_written(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(BundleError) as caught:
        write_task_proof(tmp_path, PROOF, arrays)
    assert text in caught.value.what


def test_a_proof_of_another_task_is_refused(tmp_path: Path) -> None:
    other = msgspec.structs.replace(PROOF, task="caption")
    with open_bundle(bundle_at(tmp_path / "m.port", other)) as bundle, pytest.raises(BundleError) as caught:
        read_task_proof(bundle)
    assert caught.value.what == "proof/task.json is of the task 'caption', the manifest names 'edit'"
