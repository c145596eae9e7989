"""Proofs of whole tasks that a forger changed and sealed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from anyport.bundle import TensorFileWriter, dtype_code, open_bundle, read_header, read_tensor, seal_bundle
from anyport.bundle import lossy as lossy_format
from anyport.errors import BundleError, MismatchError, UsageError
from anyport.verify import Status, verify_bundle
from anyport.verify.tasks import form_of
from tests.attacks.test_hostile_lossy_proofs import rewrite
from tests.task import blip
from tests.verify.lossy_bundles import forge, lossy_bundle, said_of
from tests.verify.task_bundles import N_SAMPLES, opener, task_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.verify import Verdict

Tree = dict[str, Any]


def verdict_of(folder: Path) -> Verdict:
    with open_bundle(folder) as bundle:
        return verify_bundle(bundle, opener(), "int8")[0]


def task(tree: Tree) -> Tree:
    found: Tree = tree["task"]
    return found


def run(tree: Tree) -> Tree:
    found: Tree = task(tree)["judged"]["runs"][0]
    return found


def tokens(tree: Tree) -> Tree:
    found: Tree = task(tree)["judged"]["outputs"]["tokens"]
    return found


HOSTILE: list[tuple[str, Callable[[Tree], object], Tree, str]] = [
    ("no lossy part", lambda t: task(t)["parts"].clear(), {}, "Expected `array` of length >= 1"),
    ("a strange part", lambda t: task(t)["parts"].append("x"), {}, "the part 'x', which is not there"),
    ("no runs", lambda t: task(t)["judged"]["runs"].clear(), {}, "Expected `array` of length >= 1"),
    (
        "a part twice",
        lambda t: task(t)["parts"].append("cross_keys"),
        {},
        "names the part 'cross_keys' 2 times",
    ),
    ("no task", lambda t: t.pop("task"), {}, "it does not judge output 'tokens' of the whole task"),
    ("an unknown key", lambda t: task(t).update(isa=[]), {}, "has an unknown key 'isa'"),
    (
        "a part alone, too",
        lambda t: t["parts"].update(cross_keys=task(t)["judged"]),
        {},
        "it is judged as a whole, and the part 'cross_keys' alone",
    ),
    (
        "a part alone, as the manifest says",
        lambda t: t["parts"].update(
            cross_keys={"outputs": {"cross_0_k": tokens(t)}, "runs": task(t)["judged"]["runs"]}
        ),
        {"part": "cross_keys", "output": "cross_0_k"},
        "it is judged as a whole, and the part 'cross_keys' alone",
    ),
    (
        "numbers have a direction",
        lambda t: tokens(t).update(metric="cosine"),
        {"metric": "cosine"},
        "output 'tokens' is judged by cosine, must be by top-1 along axis -1",
    ),
    (
        "choices along another axis",
        lambda t: tokens(t).update(axis=1),
        {},
        "output 'tokens' is judged by top-1 along axis 1, must be by top-1 along axis -1",
    ),
    (
        "a huge peak",
        lambda t: tokens(t).update(metric="psnr", peak=1e9, allowance=30, value=90),
        {"metric": "psnr", "allowance": 30, "value": 90},
        "output 'tokens' is judged by psnr with a peak of 1000000000.0, must be by top-1 along axis -1",
    ),
    (
        "a laxer limit",
        lambda t: tokens(t).update(allowance=0.9),
        {},
        "its allowance is '0.9', the manifest says '0.95'",
    ),
    (
        "forgives half",
        lambda t: tokens(t).update(allowance=0.5),
        {"allowance": 0.5},
        "a bundle may ask for 80 % to 100 %",
    ),
    (
        "forgives everything",
        lambda t: tokens(t).update(allowance=-1e308),
        {"allowance": -1e308},
        "a bundle may ask for 80 % to 100 %",
    ),
    (
        "an unknown metric",
        lambda t: tokens(t).update(metric="bleu"),
        {"metric": "bleu"},
        "'bleu', a metric that this anyport does not",
    ),
    ("a huge text", lambda t: run(t)["sizes"].update(steps=10**15), {}, "'steps' is 1000000000000000"),
    ("a size of 0", lambda t: run(t)["sizes"].update(steps=0), {}, "Expected `int` >= 1"),
    ("another size", lambda t: run(t)["sizes"].update(steps=2), {}, "axis 'steps' must be 2"),
    ("no size", lambda t: run(t)["sizes"].clear(), {}, "run 1: it gives no size to 'steps'"),
    (
        "an output unjudged",
        lambda t: task(t)["judged"].update(outputs={}),
        {},
        "it does not judge output 'tokens' of the whole task",
    ),
    (
        "another output",
        lambda t: task(t)["judged"]["outputs"].update(more=tokens(t)),
        {},
        "the outputs that it judges are not those",
    ),
    (
        "a text in the place of a picture",
        lambda t: run(t)["inputs"].update(picture=run(t)["inputs"]["written"]),
        {},
        "has an unused array 'task/1/input/picture'",
    ),
    (
        "more samples are said",
        lambda _: None,
        {"n_samples": N_SAMPLES + 1},
        f"the proof has {N_SAMPLES} samples, the manifest says {N_SAMPLES + 1}",
    ),
    ("another figure", lambda _: None, {"value": 0.99}, "its value is '1.0', the manifest says '0.99'"),
]


@pytest.mark.parametrize(("change", "entry", "text"), [r[1:] for r in HOSTILE], ids=[r[0] for r in HOSTILE])
def test_a_forged_proof_is_refused(
    tmp_path: Path, change: Callable[[Tree], object], entry: Tree, text: str
) -> None:
    folder = task_bundle(tmp_path)
    forge(folder, change, entry)
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert text in str(err.value)
    assert err.value.where is not None


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            {"part": "cross_keys", "output": "tokens"},
            "the metric of variant int8 is of output 'tokens' of part",
        ),
        ({"output": ""}, "the metric of variant int8 names no output"),
    ],
)
def test_a_manifest_that_speaks_of_nothing_is_not_sealed(tmp_path: Path, entry: Tree, text: str) -> None:
    with pytest.raises(BundleError) as err:
        forge(task_bundle(tmp_path), lambda _: None, entry)
    assert text in err.value.what


def _first(name: str) -> bool:
    return name.startswith("task/1/")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda n, a: a + 1 if n == "task/1/answer/tokens" else a,
            "run 1: its exact tokens are not those that were written",
        ),
        (
            lambda n, a: np.full_like(a, 127) if _first(n) and "picture" not in n else a,
            f"'written' holds the token 127, the model has 0 to {len(blip.VOCABULARY) - 1}",
        ),
        (
            lambda n, a: np.full_like(a.astype(np.int8), -1) if _first(n) and "picture" not in n else a,
            "'written' holds the token -1",
        ),
        (
            lambda n, a: a[:, :16] if n == "task/1/input/picture" else a,
            "'picture' is stored as U8[1, 16, 32, 3], axis '32' must be 32",
        ),
        (
            lambda n, a: a.astype(np.float32) if n == "task/1/input/picture" else a,
            "'picture' is stored as F32[1, 32, 32, 3], which is no uint8",
        ),
    ],
)
def test_arrays_of_other_forms_are_refused(
    tmp_path: Path, change: Callable[[str, np.ndarray], np.ndarray], text: str
) -> None:
    folder = task_bundle(tmp_path)
    rewrite(folder, change)
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert text in err.value.what


def _keep(folder: Path, n_runs: int) -> None:
    """Leave the arrays of the first runs in the proof."""
    path = folder / "proof" / "int8.safetensors"
    kept = {n: read_tensor(path, e) for n, e in read_header(path).items() if int(n.split("/")[1]) <= n_runs}
    path.unlink()
    order = sorted(kept, key=lambda name: -kept[name].dtype.itemsize)
    with TensorFileWriter(path, [(n, dtype_code(kept[n].dtype), kept[n].shape) for n in order]) as writer:
        for name in order:
            writer.write(name, kept[name])


def test_two_pictures_are_not_64_samples(tmp_path: Path) -> None:
    folder = task_bundle(tmp_path)
    _keep(folder, 2)
    forge(folder, lambda t: task(t)["judged"].update(runs=task(t)["judged"]["runs"][:2] * (N_SAMPLES // 2)))
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert err.value.what == "proof/int8.safetensors uses twice the array 'task/1/answer/tokens'"


def test_pictures_that_are_copied_are_not_64_samples(tmp_path: Path) -> None:
    folder = task_bundle(tmp_path)
    path = folder / "proof" / "int8.safetensors"
    arrays = {name: read_tensor(path, entry) for name, entry in read_header(path).items()}

    def copied(name: str) -> np.ndarray:
        _, number, *rest = name.split("/")
        return arrays["/".join(("task", "12"[int(number) % 2 - 1], *rest))]

    rewrite(folder, lambda name, _: copied(name))
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert err.value.what == "run 3: its picture is that of run 1"


def test_a_part_that_the_task_never_runs_is_not_judged_by_it(tmp_path: Path) -> None:
    """Whatever it computed, it would pass."""
    folder, idle = task_bundle(tmp_path), "itm_head"
    said = said_of(folder)
    variants = {}
    for name, entry in said.variants.items():
        graph = msgspec.structs.replace(entry.graphs["cross_keys"], file=f"parts/{idle}/{name}/model.onnx")
        (folder / graph.file).parent.mkdir(parents=True)
        (folder / graph.file).write_bytes(b"graph")
        variants[name] = msgspec.structs.replace(entry, graphs=entry.graphs | {idle: graph})
    parts = said.parts | {idle: form_of(blip.signature(idle))}
    seal_bundle(folder, msgspec.structs.replace(said, parts=parts, variants=variants, files=[]))
    assert verdict_of(folder).status is Status.PASS
    forge(folder, lambda t: task(t)["parts"].append(idle))
    with pytest.raises(BundleError) as err:
        verdict_of(folder)
    assert err.value.what == (
        "proof/int8.json: task: it judges the part 'itm_head', which the task does not run"
    )


def test_fewer_samples_say_too_little(tmp_path: Path) -> None:
    folder = task_bundle(tmp_path)
    _keep(folder, 20)
    forge(
        folder,
        lambda t: task(t)["judged"].update(runs=task(t)["judged"]["runs"][:20]),
        {"n_samples": 20},
    )
    with pytest.raises(MismatchError, match="20 samples say too little, 64 are needed"):
        verdict_of(folder).raise_if_bad()


def test_a_run_that_is_too_large_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a graph ran")

    folder = task_bundle(tmp_path)
    monkeypatch.setattr(lossy_format, "MAX_RUN_BYTES", 32 * 32 * 3)
    monkeypatch.setattr(blip.TorchPart, "run", refuse)
    with pytest.raises(BundleError, match="task: run 1: it has .* bytes, at most 3072 are read"):
        verdict_of(folder)


def test_a_task_that_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    folder = task_bundle(tmp_path)
    said = said_of(folder)
    seal_bundle(folder, msgspec.structs.replace(said, task="classify", files=[]))
    with pytest.raises(UsageError, match="the task 'classify' cannot be judged as a whole"):
        verdict_of(folder)


def test_each_kind_of_proof_is_read_in_its_own_way(tmp_path: Path) -> None:
    with open_bundle(task_bundle(tmp_path)) as bundle:
        assert lossy_format.read_lossy_task(bundle, "int8").n_declared == N_SAMPLES
        with pytest.raises(UsageError, match="^'int8' is judged by its task as a whole") as err:
            lossy_format.read_lossy_proof(bundle, "int8")
        assert err.value.where == str(bundle.path)
    with open_bundle(lossy_bundle(tmp_path)) as bundle:
        with pytest.raises(UsageError, match="^'int8' is judged part by part") as err:
            lossy_format.read_lossy_task(bundle, "int8")
        assert err.value.where == str(bundle.path)
