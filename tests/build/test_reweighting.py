"""A fine-tuned digits model under the old graph: its own accuracy, its own proof, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from anyport.build import BuildPlan, ReweightSettings, build, locate, reweight
from anyport.bundle import Step, open_bundle, pack, seal_bundle
from anyport.bundle.manifest import MetricEntry, lossy_files
from anyport.bundle.task_proof import has_task_proof
from anyport.errors import AnyportError, BundleError, CheckpointError, MismatchError, UsageError
from anyport.runtime import open_session
from anyport.source import load_value
from anyport.verify import Status, verify_bundle
from tests.build import test_task_proving
from tests.build.building import QUICK, ZOO, plan_for, silent
from tests.build.finetuning import DIGITS, accuracy, finetune

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

pytest.importorskip("sklearn", reason="the pictures of examples/digits are scikit-learn's")

DETERMINED = ReweightSettings(source_date_epoch=1_700_000_000, command=("anyport", "reweight"))


@pytest.fixture(scope="module", name="digits")
def _digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    description, folder = locate(str(DIGITS))
    assert description is not None
    plain = msgspec.structs.replace(description, build=type(description.build)())
    output = tmp_path_factory.mktemp("digits") / "digits.port"
    return build(BuildPlan(plain, folder, output, QUICK), silent).path


@pytest.fixture(scope="module", name="finetuned")
def _finetuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    path = tmp_path_factory.mktemp("weights") / "finetuned.safetensors"
    return path, finetune(path)


def torch_run(model: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def run(pixel_values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            scores: Tensor = model(torch.from_numpy(pixel_values))
        return scores.numpy()

    return run


def bundle_run(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    with open_bundle(path) as bundle:
        bundle.check()
        session = open_session(bundle.graph_file("network"))
    return lambda pixel_values: session.run({"pixel_values": pixel_values})["logits"]


def test_a_fine_tuned_model_has_its_own_accuracy_under_the_old_graph(
    digits: Path, finetuned: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    weights, model = finetuned
    lines: list[tuple[str, str]] = []
    found = reweight(digits, weights, tmp_path / "d.port", progress=lambda *line: lines.append(line))
    wanted, before = accuracy(torch_run(model)), accuracy(bundle_run(digits))
    assert accuracy(bundle_run(found.path)) == wanted != before
    x = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(bundle_run(found.path)(x), torch_run(model)(x), rtol=1e-4, atol=1e-4)
    assert [step for step, _ in lines] == ["weights", "warning", "bundle"]
    assert lines[0][1] == "finetuned.safetensors   22 initializers: 2 copied, 20 folded"


def test_without_pytorch_it_says_of_itself_that_it_is_unproven(
    digits: Path, finetuned: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    found = reweight(digits, finetuned[0], tmp_path / "d.port", DETERMINED)
    variant = found.manifest.variants["fp32"]
    note = (
        "the weights of 'finetuned.safetensors' were put under the graph of version 1.0.0, and not compared "
        "with PyTorch"
    )
    assert (variant.proven, variant.note, found.verdicts) == (False, note, ())
    assert "unproven" in (found.path / "MODEL_CARD.md").read_text()
    with open_bundle(found.path) as bundle:
        [verdict] = verify_bundle(bundle, open_session)
    assert verdict.status is Status.INCONCLUSIVE
    with pytest.raises(MismatchError, match=f"the bundle carries no answers of PyTorch: {note}"):
        verdict.raise_if_bad()


def test_with_pytorch_it_is_proven_as_in_a_build(
    digits: Path, finetuned: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    found = reweight(digits, finetuned[0], tmp_path / "d.port", replace(DETERMINED, against=str(DIGITS)))
    assert [{leg.name: leg.status for leg in verdict.legs} for verdict in found.verdicts] == [
        dict.fromkeys(("values", "power", "weights"), Status.PASS)
    ]
    variant = found.manifest.variants["fp32"]
    assert (variant.proven, variant.note) == (True, "")
    with open_bundle(found.path) as bundle:
        assert [verdict.status for verdict in verify_bundle(bundle, open_session)] == [Status.PASS]
    assert not load_value("model.py:load", DIGITS)().training


def test_version_steps_and_metadata_speak_of_the_new_weights(
    digits: Path, finetuned: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    found = reweight(digits, finetuned[0], tmp_path / "d.port", DETERMINED)
    facts = found.manifest.model
    assert (facts.version, facts.trained_at, facts.created) == ("1.0.1", "", "2023-11-14T22:13:20Z")
    graph = onnx.load(found.path / "parts/network/fp32/model.onnx", load_external_data=False)
    written = {entry.key: entry.value for entry in graph.metadata_props}
    assert (written["version"], "trained_at" in written) == ("1.0.1", False)
    first, last = found.manifest.variants["fp32"].steps
    assert first.result.startswith("with the weights of 1.0.0: ")
    assert (last.verb, last.result) == ("reweight", "unproven")
    assert (last.settings["checkpoint"], last.settings["graph_of"]) == ("finetuned.safetensors", "1.0.0")
    again = reweight(found.path, finetuned[0], tmp_path / "e.port", replace(DETERMINED, version="2.0.0"))
    assert again.manifest.model.version == "2.0.0"
    weights = "parts/network/fp32/weights.safetensors"
    assert (again.path / weights).read_bytes() == (found.path / weights).read_bytes()


def test_the_same_weights_give_the_same_graph_and_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    weights = DIGITS / "weights.safetensors"
    found = reweight(digits, weights, tmp_path / "d.port", DETERMINED)
    place = "parts/network/fp32"
    for name in ("weights.safetensors", "modules.json"):
        assert (found.path / place / name).read_bytes() == (digits / place / name).read_bytes()
    assert reweight(digits, weights, tmp_path / "e.port", DETERMINED).digest == found.digest


def test_a_zip_is_taken_too(digits: Path, finetuned: tuple[Path, nn.Module], tmp_path: Path) -> None:
    pack(digits, tmp_path / "digits.zip")
    found = reweight(tmp_path / "digits.zip", finetuned[0], tmp_path / "d.port", DETERMINED)
    assert found.digest == reweight(digits, finetuned[0], tmp_path / "e.port", DETERMINED).digest


def test_half_precision_is_taken_and_said(digits: Path, tmp_path: Path) -> None:
    half = {
        n: t.half() if t.is_floating_point() else t
        for n, t in load_file(DIGITS / "weights.safetensors").items()
    }
    save_file(half, tmp_path / "half.safetensors")
    lines: list[str] = []
    reweight(
        digits,
        tmp_path / "half.safetensors",
        tmp_path / "d.port",
        progress=lambda _, text: lines.append(text),
    )
    assert lines[1] == "52 tensors are of another type (F16); every number stays exact"


def _changed(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = load_file(DIGITS / "weights.safetensors")
        change(state)
        save_file(state, path)

    return write


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (
        _changed(lambda state: state.pop("head.bias")),
        "'w.safetensors' does not fit: 'head.bias' (float32[10]) is missing",
    ),
    "surplus": (
        _changed(lambda state: state.update(scale=torch.ones(1))),
        "'w.safetensors' does not fit: 'scale' is no tensor of the model",
    ),
    "wrong shape": (
        _changed(lambda state: state.update({"head.weight": torch.ones(11, 48)})),
        "'w.safetensors' does not fit: 'head.weight' is float32[11, 48], the graph takes float32[10, 48]",
    ),
    "wrong type": (
        _changed(lambda state: state.update({"head.bias": torch.ones(10, dtype=torch.int64)})),
        "'w.safetensors' does not fit: 'head.bias' is int64[10], which cannot become float32",
    ),
    "NaN": (
        _changed(lambda state: state["head.bias"].fill_(float("nan"))),
        "'w.safetensors' does not fit: 'head.bias' holds NaN: 10 of its 10 numbers",
    ),
    "a negative variance": (
        _changed(lambda state: state["stem.1.running_var"].fill_(-1)),
        (
            "'w.safetensors' does not fit: 'stem.1.running_var' is a variance, and 24 of its 24 "
            "numbers are below 0"
        ),
    ),
    "a pickle": (
        lambda path: torch.save({"head.bias": torch.ones(10)}, path),  # noqa: TID251 -- the file that is refused
        "'w.safetensors' is a pickle of PyTorch (.pt, .pth, .bin), which can run code when it is read",
    ),
    "garbage": (
        lambda path: path.write_bytes(b"\xff" * 100) and None,
        (
            "'w.safetensors' is no safetensors file: its header must have 18446744073709551615 bytes, "
            "the file has 100"
        ),
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_checkpoint_is_refused_by_name_and_nothing_is_left(
    kind: str, digits: Path, tmp_path: Path
) -> None:
    write, text = WRONG[kind]
    write(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError) as caught:
        reweight(digits, tmp_path / "w.safetensors", tmp_path / "d.port")
    assert caught.value.what == text
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_another_source_than_the_bundles_is_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "from torch import nn\n\ndef load():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()\n"
    )
    settings = replace(DETERMINED, against=str(tmp_path / "other.py") + ":load")
    with pytest.raises(CheckpointError, match=r"other.py:load' is another model than the bundle's"):
        reweight(digits, DIGITS / "weights.safetensors", tmp_path / "d.port", settings)
    assert not (tmp_path / "d.port").exists()


def test_a_graph_that_is_not_the_model_fails_the_proof(digits: Path, tmp_path: Path) -> None:
    """A bundle that lies about its folds, as an altered one would: PyTorch finds it out."""
    bad = tmp_path / "bad.port"
    shutil.copytree(digits, bad)
    place = bad / "parts/network/fp32/modules.json"
    place.write_text(place.read_text().replace('"epsilon": 0.00001', '"epsilon": 0.1'))
    assert place.read_bytes() != (digits / "parts/network/fp32/modules.json").read_bytes()
    with open_bundle(digits) as bundle:
        seal_bundle(bad, bundle.manifest)
    with pytest.raises(MismatchError):
        reweight(
            bad, DIGITS / "weights.safetensors", tmp_path / "d.port", replace(DETERMINED, against=str(DIGITS))
        )
    assert not (tmp_path / "d.port").exists()


def test_lossy_variants_are_left_out_and_it_is_said_how_to_make_them_again(
    digits: Path, tmp_path: Path
) -> None:
    lossy = tmp_path / "lossy.port"
    shutil.copytree(digits, lossy)
    for name in lossy_files("int8"):
        (lossy / name).write_bytes(b"{}")
    with open_bundle(digits) as bundle:
        exact = bundle.manifest.variants["fp32"]
        metric = MetricEntry("network", "logits", "top-1", 1.0, 0.9, 64, ["avx2"])
        step = Step("compress", {"method": "int8-static:u8s8"}, "3.6x smaller")
        small = msgspec.structs.replace(exact, steps=[*exact.steps, step], metric=metric)
        variants = {"int8": small, "fp32": exact}
        seal_bundle(
            lossy, msgspec.structs.replace(bundle.manifest, variants=variants, default_variant="int8")
        )
    lines: list[str] = []
    found = reweight(
        lossy, DIGITS / "weights.safetensors", tmp_path / "d.port", progress=lambda _, t: lines.append(t)
    )
    assert (found.dropped, list(found.manifest.variants), found.manifest.default_variant) == (
        ("int8",),
        ["fp32"],
        "fp32",
    )
    assert lines[1] == (
        "variant 'int8' is of the old weights and is left out; make it again from the new ones: "
        "anyport build … --compress int8-static:u8s8"
    )
    assert sorted(path.name for path in (found.path / "proof").iterdir()) == [
        "arrays.safetensors",
        "cases.json",
    ]


def test_a_bundle_that_says_nothing_of_its_weights_is_refused(digits: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.port"
    shutil.copytree(digits, old)
    (old / "parts/network/fp32/modules.json").write_text('{"values": {}}')
    with open_bundle(digits) as bundle:
        seal_bundle(old, bundle.manifest)
    with pytest.raises(BundleError) as caught:
        reweight(old, DIGITS / "weights.safetensors", tmp_path / "d.port")
    assert caught.value.what == (
        "the bundle does not say how the graph of variant 'fp32' follows from a checkpoint"
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (ReweightSettings(version="two"), "version 'two' is no semantic version"),
        (ReweightSettings(version="1.0.0"), "version '1.0.0' is that of the old weights"),
    ],
)
def test_a_wrong_version_is_refused(
    settings: ReweightSettings, text: str, digits: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        reweight(digits, DIGITS / "weights.safetensors", tmp_path / "d.port", settings)
    assert caught.value.what == text


def test_an_existing_output_stays(digits: Path, tmp_path: Path) -> None:
    output = tmp_path / "d.port"
    reweight(digits, DIGITS / "weights.safetensors", output, DETERMINED)
    before = (output / "SEAL").read_bytes()
    with pytest.raises(UsageError, match=r"'d.port' exists already"):
        reweight(digits, DIGITS / "weights.safetensors", output)
    (tmp_path / "bad.safetensors").write_bytes(b"")
    with pytest.raises(AnyportError):
        reweight(digits, tmp_path / "bad.safetensors", output, replace(DETERMINED, force=True))
    assert (output / "SEAL").read_bytes() == before


def test_a_masked_encoder_and_a_resnet_change_their_weights(tmp_path: Path) -> None:
    for name in ("masked_encoder", "tiny_resnet"):
        made = build(plan_for(name, tmp_path / f"{name}.port"), silent).path
        module: nn.Module = load_value(f"zoo.py:{name}", DIGITS.parents[1] / "tests" / "build")()
        state = {n: t * 1.1 if t.is_floating_point() else t for n, t in module.state_dict().items()}
        save_file(state, tmp_path / "w.safetensors")
        source = str(DIGITS.parents[1] / "tests" / "build" / "zoo.py") + f":{name}"
        found = reweight(
            made, tmp_path / "w.safetensors", tmp_path / f"{name}-2.port", replace(DETERMINED, against=source)
        )
        assert [verdict.status for verdict in found.verdicts] == [Status.PASS]


def test_a_version_with_a_suffix_is_not_guessed_on(digits: Path, tmp_path: Path) -> None:
    early = tmp_path / "early.port"
    shutil.copytree(digits, early)
    with open_bundle(digits) as bundle:
        facts = msgspec.structs.replace(bundle.manifest.model, version="1.0.0-rc.1")
        seal_bundle(early, msgspec.structs.replace(bundle.manifest, model=facts))
    with pytest.raises(UsageError, match="the version after '1.0.0-rc.1' is not clear"):
        reweight(early, DIGITS / "weights.safetensors", tmp_path / "d.port")


@pytest.mark.parametrize("what", ["weights", "bundle"])
def test_what_is_read_must_not_lie_in_the_output(what: str, tmp_path: Path) -> None:
    output, inside = tmp_path / "u.port", tmp_path / "u.port" / "inside"
    paths = {"weights": tmp_path / "w.safetensors", "bundle": tmp_path / "d.port"} | {what: inside}
    with pytest.raises(UsageError, match=r"in the output '.*u\.port', which is replaced"):
        reweight(paths["bundle"], paths["weights"], output, ReweightSettings(force=True))


def test_the_proof_of_the_whole_task_is_dropped_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = test_task_proving.built(tmp_path / "m.port", monkeypatch).path
    weights = {name: array * 2 for name, array in _state().items()}
    save_file(weights, tmp_path / "new.safetensors")
    told: list[str] = []
    found = reweight(
        old, tmp_path / "new.safetensors", tmp_path / "n.port", DETERMINED, lambda _, text: told.append(text)
    )
    text = (
        "the task is not proven as a whole: the old weights answered its requests, and the original program "
        "is not asked again; anyport build proves it"
    )
    assert text in told
    assert found.dropped_proofs == (text,)
    assert found.to_json()["dropped_proofs"] == [text]
    entry = found.manifest.variants["fp32"]
    assert entry.note.startswith("the weights of 'new.safetensors' were put under the graph of version 0.1.0")
    assert entry.note.endswith(f"; {text}")
    assert f"- {text}\n" in (found.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    with open_bundle(found.path) as bundle:
        assert not has_task_proof(bundle)
    proven = reweight(
        old,
        tmp_path / "new.safetensors",
        tmp_path / "p.port",
        replace(DETERMINED, against=f"{ZOO / 'zoo.py'}:scaled"),
        silent,
    )
    entry = proven.manifest.variants["fp32"]
    assert (entry.proven, entry.note) == (True, text)


def _state() -> dict[str, Tensor]:
    model = load_value("zoo.py:scaled", ZOO)()
    return dict(model.state_dict())
