"""Checkpoints of 16 bits: half a bundle, the same answers to the bit, and every verb goes on working."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from anyport.build import (
    BuildPlan,
    ReweightSettings,
    VerifyRequest,
    build,
    describe,
    export_plain,
    reweight,
    verify_plain,
)
from anyport.bundle import case_of, open_arrays, open_bundle, pack, read_header, read_proof, unpack
from anyport.graph.layout import write_wide
from anyport.report.factlines import operators_of
from anyport.runtime import open_session
from anyport.runtime.graphfile import read_graph
from anyport.verify import Status, verify_bundle
from tests.build.blip_checkpoints import TINY, write_checkpoint
from tests.build.building import QUICK, silent
from tests.build.edit_bundle import HOW
from tests.graph.narrowgraphs import BITS, HALVES
from tests.house import tree
from tests.recipe.qwen_folders import write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import BuildResult
    from anyport.bundle import GraphEntry

MODEL: Final = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = nn.Linear(48, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 96), nn.Tanh(), nn.Linear(96, 32)
    return nn.Sequential(*layers).eval()

def load():
    model = net()
    for weight in model.parameters():
        weight.data = weight.data.to(torch.{half}).float()
    return model
"""
TABLES: Final = {
    "inputs": {"x": "float32[batch, 48]"},
    "outputs": {"y": "float32[batch, 32]"},
    "dims": {"batch": "1..8"},
}
FEW: Final = replace(QUICK, max_cases=6)
CODES: Final = {"bfloat16": "BF16", "float16": "F16"}


def project(folder: Path, half: str) -> Path:
    """Write a model whose checkpoint had 16 bits."""
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text(MODEL.replace("{half}", half), encoding="utf-8")
    return folder


def plan(folder: Path, name: str, **words: Any) -> BuildPlan:
    described = {"model": {"source": "model.py:load"}, "build": words, **TABLES}
    if "compress" in words:
        described["calibrate"] = {"samples": "random"}
    description = describe(described, "test")
    return BuildPlan(description, folder, folder / name, FEW)


@dataclass(frozen=True)
class Made:
    """A bundle of the project.

    Attributes:
        folder: Of the project.
        result: Of the build.
        told: Its lines.
    """

    folder: Path
    result: BuildResult
    told: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.result.path

    @property
    def entry(self) -> GraphEntry:
        return self.result.manifest.variants["fp32"].graphs["network"]


_MADE: dict[str, Made] = {}


@pytest.fixture(params=HALVES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    half = request.param
    if half not in _MADE:
        folder = project(tmp_path_factory.mktemp("project") / half, half)
        told: list[str] = []
        result = build(plan(folder, "m.port"), lambda step, line: told.append(f"{step}: {line}"))
        _MADE[half] = Made(folder, result, tuple(told))
    return _MADE[half]


def half_of(made: Made) -> str:
    return made.folder.name


def stored_bytes(entry: GraphEntry, bundle: Path) -> int:
    return (bundle / str(entry.weights)).stat().st_size


def answers(bundle: Path, variant: str | None = None) -> bytes:
    x = np.random.default_rng(3).normal(size=(5, 48)).astype(np.float32)
    with open_bundle(bundle) as opened:
        return open_session(opened.graph_file("network", variant)).run({"x": x})["y"].tobytes()


def statuses(bundle: Path, variant: str | None = None) -> set[Status]:
    with open_bundle(bundle) as opened:
        opened.check()
        return {verdict.status for verdict in verify_bundle(opened, open_session, variant)}


# ── what is written, and what is said of it ────────────────────────────────────────────────────────────
def test_a_build_stores_what_the_checkpoint_held_and_proves_it(made: Made) -> None:
    half, entry = half_of(made), made.entry
    assert entry.stored[half] == 2 * (48 * 64 + 64 * 96 + 96 * 32)
    assert entry.stored["float32"] == 4 * (64 + 2 * 64 + 96 + 32)  # smaller than 1 KiB, each of them
    [verdict] = made.result.verdicts
    assert {leg.name: leg.status for leg in verdict.legs} == dict.fromkeys(
        ("values", "power", "weights"), Status.PASS
    )
    assert verdict.leg("weights").line == "8 of 8 weights found"
    header = read_header(made.path / str(entry.weights))
    assert sorted(e.dtype for e in header.values()) == sorted([CODES[half]] * 3 + ["F32"] * 5)
    assert {"0.bias", "2.weight"} < set(header)
    assert statuses(made.path) == {Status.PASS}
    assert f"nodes, opset 20, weights in {half} 24.6 kB, float32 1.3 kB" in "\n".join(made.told)
    card = (made.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"## Weights\n\n- `network`, `fp32`: {half} 24.6 kB, float32 1.3 kB\n" in card


def test_the_same_build_gives_the_same_bytes(made: Made) -> None:
    again = build(plan(made.folder, "again.port"), silent)
    assert again.digest == made.result.digest


def test_asked_for_float32_the_weights_are_twice_as_large_and_the_answers_the_same(made: Made) -> None:
    wide = build(plan(made.folder, "wide.port", storage="float32"), silent)
    entry = wide.manifest.variants["fp32"].graphs["network"]
    assert entry.stored == {"float32": 2 * made.entry.stored[half_of(made)] + made.entry.stored["float32"]}
    assert 1.8 < stored_bytes(entry, wide.path) / stored_bytes(made.entry, made.path) < 2
    assert answers(wide.path) == answers(made.path)
    assert made.entry.operators == entry.operators | {"Cast": 3}


def test_a_bundle_goes_through_a_zip(made: Made, tmp_path: Path) -> None:
    pack(made.path, tmp_path / "m.zip")
    assert statuses(tmp_path / "m.zip") == {Status.PASS}
    unpack(tmp_path / "m.zip", tmp_path / "out.port")
    assert answers(tmp_path / "out.port") == answers(made.path)


# ── plain files, and a planted change ──────────────────────────────────────────────────────────────────
def verdict_of(path: Path, folder: Path) -> Any:
    return verify_plain(VerifyRequest(path, str(folder / "model.py") + ":load", {}, {}, {}, FEW))


def test_one_changed_bit_of_one_weight_fails(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    found = export_plain(replace(plan(made.folder, "m.onnx"), output=path), silent)
    assert found.files == (path,)
    assert verdict_of(path, made.folder).leg("weights").line == "8 of 8 weights found"
    model = onnx.load(path)
    weights = {w.name: w for w in model.graph.initializer if w.data_type != onnx.TensorProto.FLOAT}
    name = max(weights, key=lambda one: len(weights[one].raw_data))
    bits = np.frombuffer(weights[name].raw_data, np.uint16).copy()
    assert bits.size == 64 * 96
    bits[777] ^= 1
    weights[name].raw_data = bits.tobytes()
    onnx.save(model, path)
    leg = verdict_of(path, made.folder).leg("weights")
    assert leg.status is Status.FAIL
    assert leg.line.startswith(
        f"weight '{name}' is changed: 1 of 6144 elements differ, the first at index (12, 9): "
    )


# ── what is made of it ─────────────────────────────────────────────────────────────────────────────────
def test_simplified_it_stays_narrow_and_proven(made: Made) -> None:
    found = build(plan(made.folder, "slim.port", simplify="auto"), silent)
    variant = found.manifest.variants["fp32"]
    entry = variant.graphs["network"]
    assert variant.proven
    assert entry.stored[half_of(made)] == made.entry.stored[half_of(made)]
    assert found.simplifications["network"].kept_attempt.n_weights_after == 8
    assert entry.n_nodes == sum(entry.operators.values())
    assert f"-> {entry.n_nodes - 3} nodes, proven equal" in variant.steps[-1].result
    mine, theirs = (np.frombuffer(answers(path), np.float32) for path in (found.path, made.path))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    check_said(found.path, "fp32")


def check_said(bundle: Path, variant: str) -> None:
    """The manifest says of a graph what the file is."""
    with open_bundle(bundle) as opened:
        graph = opened.graph_file("network", variant)
        model = read_graph(graph.path)
        assert dict(operators_of(model)) == graph.entry.operators
        assert graph.entry.n_nodes == sum(1 for _ in model.all_nodes())
        sizes: dict[str, int] = {}
        for tensor in model.graph.initializers:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size_bytes
        assert graph.entry.stored == sizes


FLAVOUR = "int8-dynamic:u8s8"  # named, or a race chooses it, and not the same one twice


def integers(bundle: Path) -> dict[str, bytes]:
    with open_bundle(bundle) as opened:
        path = opened.graph_file("network", FLAVOUR.replace(":", "-")).path
        model = onnx.load(path)
        return {w.name: w.raw_data for w in model.graph.initializer if w.data_type == onnx.TensorProto.INT8}


def test_quantizers_see_the_weights_behind_their_casts(made: Made) -> None:
    words = {"compress": [FLAVOUR], "prefer": "size"}
    narrow = build(plan(made.folder, "int8.port", **words), silent)
    wide = build(plan(made.folder, "int8_wide.port", storage="float32", **words), silent)
    variant = FLAVOUR.replace(":", "-")
    assert list(narrow.manifest.variants) == ["fp32", variant], narrow.refused
    assert len([array for array in integers(narrow.path).values() if len(array) > 1000]) == 3
    assert integers(narrow.path) == integers(wide.path)
    assert answers(narrow.path, variant) == answers(wide.path, variant)
    assert half_of(made) not in narrow.manifest.variants[variant].graphs["network"].stored


def test_halving_what_is_halved_is_refused(made: Made) -> None:
    found = build(plan(made.folder, "fp16.port", compress=["fp16"], prefer="size"), silent)
    assert list(found.manifest.variants) == ["fp32"]
    assert found.refused["fp16"].what.startswith("fp16 did nothing: the nodes are the same, ")


# ── other weights under it ─────────────────────────────────────────────────────────────────────────────
def checkpoint(path: Path, change: Any) -> Path:
    torch.manual_seed(1)
    state = {f"{i}.{n}": torch.randn(s) / 8 for i, n, s in (
        (0, "weight", (64, 48)), (0, "bias", (64,)), (2, "weight", (64,)), (2, "bias", (64,)),
        (3, "weight", (96, 64)), (3, "bias", (96,)), (5, "weight", (32, 96)), (5, "bias", (32,)),
    )}  # fmt: skip
    save_file({name: change(name, tensor) for name, tensor in state.items()}, path)
    return path


def swapped(made: Made, tmp_path: Path, change: Any) -> tuple[GraphEntry, list[str]]:
    told: list[str] = []
    weights = checkpoint(tmp_path / "w.safetensors", change)
    settings = ReweightSettings(against=str(made.folder / "model.py") + ":load", max_cases=6)
    output = tmp_path / "new.port"
    found = reweight(made.path, weights, output, settings, lambda *line: told.append(": ".join(line)))
    assert [verdict.status for verdict in found.verdicts] == [Status.PASS]
    assert statuses(found.path) == {Status.PASS}
    check_said(found.path, "fp32")
    return found.manifest.variants["fp32"].graphs["network"], told


def test_new_weights_that_fit_stay_narrow(made: Made, tmp_path: Path) -> None:
    half = BITS[half_of(made)]
    entry, told = swapped(made, tmp_path, lambda _, tensor: tensor.to(half))
    assert entry == made.entry
    assert not [line for line in told if "stored in other types" in line]


def test_new_weights_that_do_not_fit_are_stored_in_float32_and_it_is_said(made: Made, tmp_path: Path) -> None:
    entry, told = swapped(made, tmp_path, lambda _, tensor: tensor)
    stored = made.entry.stored
    assert entry.stored == {"float32": 2 * stored[half_of(made)] + stored["float32"]}
    assert entry.operators == {name: n for name, n in made.entry.operators.items() if name != "Cast"}
    [line] = [line for line in told if "stored in other types" in line]
    assert line == (
        f"weights: fp32   stored in other types, as the new numbers need: {half_of(made)} 24.6 kB, "
        "float32 1.3 kB -> float32 50.4 kB"
    )


def test_of_weights_that_fit_in_part_the_others_are_widened(made: Made, tmp_path: Path) -> None:
    half = BITS[half_of(made)]
    entry, _ = swapped(
        made, tmp_path, lambda name, tensor: tensor if name == "3.weight" else tensor.to(half).float()
    )
    assert entry.stored[half_of(made)] == made.entry.stored[half_of(made)] - 2 * 64 * 96


# ── whole checkpoints ──────────────────────────────────────────────────────────────────────────────────
def save_in(folder: Path, half: str) -> Path:
    """Save the weights of a checkpoint again, in 16 bits."""
    for path in folder.rglob("*.safetensors"):
        state = load_file(path)
        halves = {n: x.to(BITS[half]) if x.is_floating_point() else x for n, x in state.items()}
        save_file(halves, path, {"format": "pt"})
    return folder


def build_checkpoint(folder: Path, how: Any, output: str = "m.port", **words: Any) -> BuildResult:
    description = describe({"model": {"source": folder.name}, "build": words}, "test")
    return build(BuildPlan(description, folder.parent, folder.parent / output, how), silent)


def check_answers_are_those_in_float32(bundle: Path, places: Path) -> None:
    """Hold every proof's inputs against the same graphs with their weights in float32."""
    with open_bundle(bundle) as opened:
        proof = read_proof(opened)
        arrays = open_arrays(opened)
        for part, cases in proof.parts.items():
            (places / part).mkdir(parents=True)
            graph = opened.graph_file(part)
            write_wide(graph.path, places / part / "model.onnx")
            narrow, wide = open_session(graph), open_session(places / part / "model.onnx")
            for case in cases:
                feeds = case_of(case, arrays).arrays(narrow.inputs)
                answer, expected = narrow.run(feeds), wide.run(feeds)
                assert {n: a.tobytes() for n, a in answer.items()} == {
                    n: a.tobytes() for n, a in expected.items()
                }, part


def graph_bytes(result: BuildResult) -> int:
    sizes = {entry.path: entry.size_bytes for entry in result.manifest.files}
    return sum(sizes[str(g.weights)] for g in result.manifest.variants["fp32"].graphs.values())


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "diffusers", "onnx", "onnx_ir", "safetensors"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
from anyport.cli import main
codes = [main(words.split("|")) for words in sys.argv[1:]]
print("codes", codes, "torch" in sys.modules, "onnx" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES)
def test_a_blip_folder_makes_half_a_bundle_that_runs_without_pytorch(half: str, tmp_path: Path) -> None:
    folder = save_in(write_checkpoint("BlipForConditionalGeneration", TINY, tmp_path / "blip"), half)
    narrow = build_checkpoint(folder, FEW)
    wide = build_checkpoint(folder, FEW, "wide.port", storage="float32")
    assert {v.status for v in (*narrow.verdicts, *wide.verdicts)} == {Status.PASS}
    assert [str(v.leg("weights").line) for v in narrow.verdicts] == [
        str(v.leg("weights").line) for v in wide.verdicts
    ]
    assert 1.8 < graph_bytes(wide) / graph_bytes(narrow) < 2.0
    check_answers_are_those_in_float32(narrow.path, tmp_path / "places")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "p.png")
    run = ["run", "{bundle}", tmp_path / "p.png"]
    said = []
    for bundle in (narrow.path, wide.path):
        commands = [["verify", bundle], [bundle if word == "{bundle}" else word for word in run]]
        found = subprocess.run(
            [sys.executable, "-c", BLOCKED, *("|".join(map(str, words)) for words in commands)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=os.environ | {"PYTHONPATH": str(tree.PACKAGE.parent)},
        )
        assert found.stdout.splitlines()[-1:] == ["codes [0, 0] False False"], found.stdout + found.stderr
        said.append(found.stdout.splitlines()[-2])
    assert said[0] == said[1] != ""


@pytest.mark.slow
def test_a_qwen_image_edit_folder_makes_half_a_bundle(tmp_path: Path) -> None:
    folder = save_in(write_folder(tmp_path / "Tiny-Edit"), "bfloat16")
    result = build_checkpoint(folder, HOW)
    assert {verdict.status for verdict in result.verdicts} == {Status.PASS}
    for part, entry in result.manifest.variants["fp32"].graphs.items():
        assert entry.stored["bfloat16"] > 20 * entry.stored["float32"], part
    assert statuses(result.path) == {Status.PASS}
    check_answers_are_those_in_float32(result.path, tmp_path / "places")


def test_a_model_of_float32_is_stored_as_before(tmp_path: Path) -> None:
    folder = project(tmp_path / "float32", "float32")
    found = build(plan(folder, "m.port"), silent)
    assert set(found.manifest.variants["fp32"].graphs["network"].stored) == {"float32"}
    assert "Cast" not in found.manifest.variants["fp32"].graphs["network"].operators
