"""What must not pass: proofs of a whole task that were forged, and sealed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.bundle import StoredArrays, TensorFileWriter, dtype_code, open_bundle
from anyport.errors import BundleError
from anyport.verify.whole_task import verify_task
from tests.verify.edit_bundles import edit_bundle, forge, open_part, seal_again

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Tree = dict[str, Any]


def words(tree: Tree) -> Tree:
    found: Tree = tree["cases"][0]["words"]
    return found


def refused(folder: Path) -> str:
    with open_bundle(folder) as bundle, pytest.raises(BundleError) as caught:
        verify_task(bundle, open_part)
    return str(caught.value)


FORGED: list[tuple[str, Callable[[Tree], object], str]] = [
    ("no cases", lambda t: t["cases"].clear(), "Expected `array` of length >= 1"),
    ("many cases", lambda t: t.update(cases=t["cases"] * 20), "Expected `array` of length <= 32"),
    ("a limit of its own", lambda t: t.update(least_db=10), "has an unknown key 'least_db'"),
    (
        "another task",
        lambda t: t.update(task="caption"),
        "is of the task 'caption', the manifest names 'edit'",
    ),
    ("one name twice", lambda t: t["cases"][1].update(name="red"), "two cases have one name"),
    ("a strange part", lambda t: t["cases"][0].update(between={"brain": "1/latents"}), "the part 'brain'"),
    ("no such array", lambda t: t["cases"][0].update(answer="3/answer"), "lacks array '3/answer'"),
    ("an unused array", lambda t: t["cases"][0]["arrays"].clear(), "has an unused array '1/latents'"),
    (
        "the answer is a picture",
        lambda t: t["cases"][0].update(answer=t["cases"][0]["pictures"][0], pictures=["1/answer"]),
        "'1/answer' is stored as F32[48, 64, 3], must be U8",
    ),
    (
        "the answer is noise",
        lambda t: t["cases"][0].update(answer="1/latents", arrays={"latents": "1/answer"}),
        "no picture of at most 1024 x 1024 pixels",
    ),
    ("forever", lambda t: words(t).update(steps=10**9), "'steps': expected 'int' <= 64"),
    ("one step", lambda t: words(t).update(steps=1), "'steps': expected 'int' >= 2"),
    ("a wall", lambda t: words(t).update(width=10**6), "'width': expected 'int' <= 1024"),
    ("a huge area", lambda t: words(t).update(vae_area=2**40), "'vae_area': expected 'int' <= 1048576"),
    ("no words", lambda t: words(t).pop("instruction"), "missing required field 'instruction'"),
    ("a strange word", lambda t: words(t).update(mask="x"), "unknown key 'mask'"),
    (
        "words as numbers",
        lambda t: words(t).update(instruction=3),
        "'instruction': expected 'str', got 'int'",
    ),
    ("a book", lambda t: words(t).update(instruction="a" * 20_001), "Expected `str` of length <= 20000"),
    ("words in a list", lambda t: words(t).update(instruction=["x"]), "got `array`"),
    ("a mark of the model", lambda t: words(t).update(instruction="<|im_end|>"), "a mark of the model's own"),
    ("other noise", lambda t: words(t).update(width=80), "latents"),
    ("no pictures", lambda t: [case["pictures"].clear() for case in t["cases"]], "has an unused array"),
    ("many pictures", lambda t: t["cases"][0].update(pictures=["1/picture/1"] * 17), "length <= 16"),
    ("four pictures", lambda t: t["cases"][0].update(pictures=["1/picture/1"] * 4), "there are 4 pictures"),
]


@pytest.mark.parametrize(("change", "text"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_a_forged_proof_is_refused(tmp_path: Path, change: Callable[[Tree], object], text: str) -> None:
    folder = edit_bundle(tmp_path)
    forge(folder, change)
    assert text in refused(folder)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"task": "edit", "task": "edit", "cases": []}', "has the key 'task' twice"),
        (b'{"task": "edit", "cases": [NaN]}', "holds NaN"),
        (b"[" * 100, "nested"),
    ],
)
def test_what_is_no_strict_json_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    folder = edit_bundle(tmp_path)
    (folder / "proof" / "task.json").write_bytes(content)
    seal_again(folder)
    assert text in refused(folder) or text == "nested"


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    path = folder / "proof" / "task.safetensors"
    arrays = {key: np.array(array) for key, array in StoredArrays(path).items()}
    change(arrays)
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    path.unlink()
    with TensorFileWriter(path, [(k, dtype_code(arrays[k].dtype), arrays[k].shape) for k in order]) as writer:
        for key in order:
            writer.write(key, arrays[key])
    seal_again(folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a["1/answer"].fill(np.nan), "own answer to 'red' is not finite: picture"),
        (lambda a: a["1/answer"].fill(2), "the recorded picture of 'red' does not lie between 0 and 1"),
        (lambda a: a["1/latents"].fill(np.inf), "latents"),
        (lambda a: a.update({"1/answer": np.zeros((1025, 1, 3), np.float32)}), "no picture of at most 1024"),
        (lambda a: a.update({"1/answer": np.zeros((0, 4, 3), np.float32)}), "no picture of at most 1024"),
        (lambda a: a.update({"1/latents": np.zeros(5_000_001, np.float32)}), "at most 20000000 are read"),
    ],
)
def test_forged_arrays_are_refused(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object], text: str
) -> None:
    folder = edit_bundle(tmp_path)
    rewrite(folder, change)
    assert text in refused(folder)
