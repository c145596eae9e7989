from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest

from anyport.build import BuildPlan, build, describe, steps, task_compressing
from anyport.build.compressing import Variant
from anyport.build.task_compressing import check_task_samples, compress_task, is_task_judged
from anyport.bundle import open_bundle, seal_bundle
from anyport.bundle.manifest import decode_manifest
from anyport.compress.compressing import compress_graph
from anyport.compress.quantizing import quantize
from anyport.errors import AnyportError, CompressError, InputError, UsageError
from anyport.graph.fastest import RaceSettings
from anyport.recipe import blip
from anyport.runtime import open_session
from anyport.verify import Evaluation, Status, metric_line, verify_bundle
from tests.build.building import QUICK, silent
from tests.build.trained_blip import write_pictures, write_trained
from tests.recipe.blip_folders import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from anyport.build import BuildResult
    from anyport.build.parts import ProvenPart
    from anyport.compress.compressing import CompressRequest
    from anyport.compress.compression import Compression
    from anyport.compress.methods import Method
    from anyport.compress.quantizing import Quantized
    from anyport.compress.ranges import Range
    from anyport.compress.samples import Samples
    from anyport.recipe import Model
    from anyport.runtime import Session
    from anyport.verify import Recording

PARTS = ("vision_encoder", "cross_keys", "text_decoder")
METHOD = "int8-dynamic:u8s8"
NAME = "int8-dynamic-u8s8"
N_PICTURES = 72


@dataclass(frozen=True)
class Built:
    """A captioner that was built, and what is needed to compress it once more."""

    folder: Path
    result: BuildResult
    lines: tuple[tuple[str, str], ...]
    model: Model
    proven: tuple[ProvenPart, ...]

    def copy(self, place: Path) -> tuple[Path, list[ProvenPart]]:
        """Return a bundle of the exact variant alone, and its parts."""
        bundle = place / "b.port"
        shutil.copytree(self.result.path, bundle)
        for part in PARTS:
            shutil.rmtree(bundle / "parts" / part / NAME, ignore_errors=True)
        for file in (bundle / "proof").glob(f"{NAME}.*"):
            file.unlink()
        moved = [
            replace(
                one,
                graph=replace(
                    one.graph, path=bundle / "parts" / one.part.name / "fp32" / one.graph.path.name
                ),
            )
            for one in self.proven
        ]
        return bundle, moved

    def ready(self, graph: Path, output: Path, _: CompressRequest) -> Compression:
        """Hand out what was made of a graph before, in the place of `compress_graph`."""
        part = graph.parents[1].name
        for file in (self.result.path / "parts" / part / NAME).iterdir():
            shutil.copy(file, output.parent)
        return self.result.compressions[NAME][part]


def plan_for(folder: Path, source: str = "tiny", **tables: Any) -> BuildPlan:
    made = {"compress": [METHOD], "prefer": "size"}
    words = {"model": {"source": source}, "build": made, "calibrate": {"samples": "photos"}} | tables
    return BuildPlan(describe(words, "test"), folder, folder / "blip.port", replace(QUICK, max_cases=24))


def quickly(graph: Path, output: Path, request: CompressRequest, *more: Any) -> Compression:
    """Race for a moment only: what is faster is no question here."""
    return compress_graph(graph, output, replace(request, race=RaceSettings(budget_s=1.0)), *more)


@pytest.fixture(autouse=True)
def _quick_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_compressing, "compress_graph", quickly)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("blip")
    write_trained(folder / "tiny")
    write_pictures(folder / "photos", N_PICTURES)
    lines: list[tuple[str, str]] = []
    seen: list[tuple[Model, ProvenPart]] = []
    with pytest.MonkeyPatch.context() as patch:
        own = steps.export_and_prove

        def noted(model: Model, *more: Any) -> ProvenPart:
            seen.append((model, own(model, *more)))
            return seen[-1][1]

        patch.setattr(steps, "export_and_prove", noted)
        patch.setattr(task_compressing, "compress_graph", quickly)
        result = build(plan_for(folder), lambda step, text: lines.append((step, text)))
    return Built(folder, result, tuple(lines), seen[0][0], tuple(one for _, one in seen))


def test_the_task_judges_every_part_and_all_together(built: Built) -> None:
    said = [text for step, text in built.lines if step == "compress"]
    assert said[0] == "the task 'caption' answers photos (72 pictures) (72 of 72)"
    assert [line.split()[0] for line in said[1:]] == [*PARTS, NAME]
    assert said[-1].startswith(f"{NAME}   {', '.join(PARTS)} together: 'tokens' top-1 agreement ")
    assert built.result.refused == {}
    found = built.result.compressions[NAME]
    assert list(found) == list(PARTS)
    for part in PARTS:
        outputs = [one.output for one in found[part].evaluation.measures]
        assert outputs[0] == "tokens"
        assert all(name.startswith(f"{part}/") for name in outputs[1:])
        assert len(outputs) > 1
    report = json.loads((built.folder / "blip.report.json").read_bytes())
    assert report["compressions"][NAME]["text_decoder"]["evaluation"]["status"] == "PASS"


def test_the_manifest_says_what_the_task_is_worth(built: Built) -> None:
    entry = built.result.manifest.variants[NAME]
    metric = entry.metric
    assert metric is not None
    assert (metric.part, metric.output, metric.metric) == ("", "tokens", "top-1")
    assert metric.allowance == 0.95
    assert metric.value >= 0.96
    assert metric.n_samples == N_PICTURES
    assert f" of {N_PICTURES} texts wholly equal; least cosine of a part " in metric.note
    assert entry.proven
    compressed = [step.settings["part"] for step in entry.steps if step.verb == "compress"]
    assert compressed == list(PARTS)
    for part in PARTS:
        assert entry.graphs[part].file == f"parts/{part}/{NAME}/model.onnx"
    card = (built.result.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"- `{NAME}`: {metric_line(metric)}" in card


def test_the_bundle_verifies_where_there_is_no_pytorch(built: Built) -> None:
    with open_bundle(built.result.path) as bundle:
        bundle.check()
        for variant in ("fp32", NAME):
            verdicts = verify_bundle(bundle, open_session, variant)
            assert [verdict.status for verdict in verdicts] == [Status.PASS] * len(PARTS)
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'transformers', 'onnxscript', 'onnx_ir'):\n"
        "    sys.modules[name] = None\n"
        "from anyport.cli import main\n"
        "sys.exit(main())\n"
    )
    words = ["verify", str(built.result.path), "--variant", NAME]
    ran = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "'tokens' top-1 agreement" in ran.stdout


def test_a_variant_whose_graph_was_ruined_since_fails(built: Built, tmp_path: Path) -> None:
    place = tmp_path / "b.port"
    shutil.copytree(built.result.path, place)
    said = decode_manifest((place / "manifest.json").read_bytes())
    ruin(place / "parts" / "cross_keys" / "fp32" / "model.onnx", place / "parts" / "cross_keys" / NAME)
    seal_bundle(place, msgspec.structs.replace(said, files=[]))
    with open_bundle(place) as bundle:
        verdicts = verify_bundle(bundle, open_session, NAME)
    assert verdicts[0].status is Status.FAIL
    assert "it answers too differently" in verdicts[0].leg("values").line


def ruin(graph: Path, folder: Path) -> None:
    """Write a graph with its products scaled by -2, in the place of another."""
    shutil.rmtree(folder)
    folder.mkdir()
    model = onnx.load(graph)
    for weight in model.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.ndim > 1 and array.dtype == np.float32:
            weight.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(-2), weight.name))
    onnx.save(model, folder / "model.onnx")
    for name in ("weights.safetensors", "modules.json"):
        if (graph.parent / name).exists():
            shutil.copy(graph.parent / name, folder / name)


def ruining(built: Built, part: str) -> Callable[..., Compression]:
    """Return a `compress_graph` whose candidates for a part have scaled weights."""

    def quantizer(
        graph: Path,
        method: Method,
        samples: Samples | None,
        output: Path,
        ranges: Mapping[str, Range] | None = None,
    ) -> Quantized:
        made = quantize(graph, method, samples, output, ranges)
        model = onnx.load(output)
        for weight in model.graph.initializer:
            if weight.name.endswith("_scale"):
                array = onnx.numpy_helper.to_array(weight)
                spoiled = (
                    array * np.float32(1.6) * np.where(np.arange(array.size) % 2, 1, -1).reshape(array.shape)
                )
                weight.CopyFrom(onnx.numpy_helper.from_array(spoiled.astype(array.dtype), weight.name))
        for file in output.parent.iterdir():
            if file.suffix == ".safetensors":
                file.unlink()
        onnx.save(model, output)
        return made

    def compress(graph: Path, output: Path, request: CompressRequest) -> Compression:
        if graph.parents[1].name == part:
            return quickly(graph, output, replace(request, quantizer=quantizer))
        return built.ready(graph, output, request)

    return compress


def test_a_ruined_part_stays_exact_and_the_others_go_on(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_compressing, "compress_graph", ruining(built, "vision_encoder"))
    bundle, proven = built.copy(tmp_path)
    lines: list[str] = []
    variant = compress_task(
        built.model, proven, plan_for(built.folder), METHOD, lambda _, text: lines.append(text)
    )
    assert isinstance(variant, Variant)
    assert list(variant.found) == ["cross_keys", "text_decoder"]
    assert lines[1].startswith(f"vision_encoder stays fp32 in {NAME}: {METHOD} does not hold the metric: '")
    assert lines[1].endswith("it answers too differently")
    assert variant.entry.graphs["vision_encoder"].file == "parts/vision_encoder/fp32/model.onnx"
    assert not (bundle / "parts" / "vision_encoder" / NAME).exists()


def test_parts_that_cost_too_much_together_go_one_by_one(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part passes alone; what they answer together is called too different, twice."""
    own = task_compressing.evaluate
    verdicts = iter([False, False, True])

    def judged(recording: Recording, candidate: Session) -> Evaluation:
        found = own(recording, candidate)
        return found if next(verdicts) else failed(found)

    monkeypatch.setattr(task_compressing, "evaluate", judged)
    monkeypatch.setattr(task_compressing, "compress_graph", built.ready)
    bundle, proven = built.copy(tmp_path)
    lines: list[str] = []
    variant = compress_task(
        built.model, proven, plan_for(built.folder), METHOD, lambda _, text: lines.append(text)
    )
    assert len(variant.found) == 1
    dropped = [line for line in lines if "together do not hold the metric: 'tokens'" in line]
    assert len(dropped) == 2
    assert len(list(bundle.glob(f"parts/*/{NAME}"))) == 1


def test_nothing_is_left_of_a_variant_that_never_passes(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = task_compressing.evaluate
    monkeypatch.setattr(task_compressing, "evaluate", lambda held, one: failed(own(held, one)))
    monkeypatch.setattr(task_compressing, "compress_graph", built.ready)
    bundle, proven = built.copy(tmp_path)
    with pytest.raises(CompressError) as err:
        compress_task(built.model, proven, plan_for(built.folder), METHOD, silent)
    assert err.value.what.startswith(
        f"{METHOD}: {', '.join(PARTS)} together do not hold the metric: 'tokens'"
    )
    assert not list(bundle.glob(f"parts/*/{NAME}"))
    assert not list(bundle.glob(f"proof/{NAME}*"))


def failed(found: Evaluation) -> Evaluation:
    [tokens] = found.measures
    return Evaluation((replace(tokens, status=Status.FAIL, reason="it answers too differently", used=2.0),))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["BlipForImageTextRetrieval", "BlipForQuestionAnswering"])
def test_tasks_with_texts_are_judged_with_the_users_own(architecture: str, tmp_path: Path) -> None:
    """Static and dynamic; a part of seeded weights may cost too much, and stays exact then."""
    write_folder(architecture, tmp_path / "tiny", n_layers=1)
    write_pictures(tmp_path / "photos", 72)
    (tmp_path / "texts.txt").write_text("two cats\nthe red car\nwhat is it\na dog\n", encoding="utf-8")
    given = {"samples": "photos", "texts": "texts.txt"}
    plan = plan_for(tmp_path, calibrate=given, build={"compress": ["int8"], "prefer": "size"})
    result = build(plan, silent)
    entry = result.manifest.variants["int8"]
    assert "of anyport's own" not in entry.note
    with open_bundle(result.path) as bundle:
        for verdict in verify_bundle(bundle, open_session, "int8"):
            assert verdict.status is Status.PASS, verdict


WRONG: dict[str, tuple[dict[str, Any], type[AnyportError], str]] = {
    "too few pictures": (
        {"calibrate": {"samples": "few"}},
        InputError,
        "60 samples of few (60 pictures) are too few, 64 are needed",
    ),
    "too few with ranges": (
        {"calibrate": {"samples": "some"}, "build": {"compress": ["int8"], "prefer": "size"}},
        InputError,
        "70 samples of some (70 pictures) are too few, 72 are needed",
    ),
    "texts for a captioner": (
        {"calibrate": {"samples": "photos", "texts": "texts.txt"}},
        UsageError,
        "the task 'caption' looks at pictures alone",
    ),
    "no texts": (
        {"calibrate": {"samples": "photos", "texts": "none.txt"}},
        InputError,
        "none.txt cannot be read: No such file or directory",
    ),
    "texts without pictures": (
        {"calibrate": {"samples": "calibrate.py:{part}", "texts": "texts.txt"}},
        UsageError,
        "the texts of texts.txt go with a folder of pictures, not with 'calibrate.py:{part}'",
    ),
    "a metric of one's own": (
        {"evaluate": {"function": "evaluate.py:{part}"}},
        UsageError,
        "[evaluate] is of one part, and a folder of pictures has the task judge as a whole",
    ),
    "another metric of a part": (
        {"metrics": {"image_embeds": "psnr"}},
        UsageError,
        "'image_embeds' is what a part gives on its way through the task: its metric is cosine, not psnr",
    ),
    "a metric of nothing": (
        {"metrics": {"image_embed": "cosine"}},
        UsageError,
        "[metrics] names 'image_embed', which is no output (did you mean 'image_embeds'?)",
    ),
}


@pytest.mark.parametrize(("tables", "kind", "text"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_judged_is_told_before_the_export(
    built: Built,
    monkeypatch: pytest.MonkeyPatch,
    tables: dict[str, Any],
    kind: type[AnyportError],
    text: str,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the export has begun")

    monkeypatch.setattr(steps, "export_and_prove", refuse)
    for name, n in (("few", 60), ("some", 70)):
        if not (built.folder / name).exists():
            write_pictures(built.folder / name, n)
    (built.folder / "texts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    plan = plan_for(built.folder, **tables)
    with pytest.raises(kind) as err:
        build(replace(plan, output=built.folder / "other.port"), silent)
    assert err.value.what.endswith(text)
    assert not (built.folder / "other.port").exists()


def test_two_texts_are_needed_to_choose_from(built: Built, tmp_path: Path) -> None:
    folder = write_folder("BlipForImageTextRetrieval", tmp_path / "tiny", n_layers=1)
    model = blip.load(folder)
    shutil.copytree(built.folder / "photos", tmp_path / "photos")
    (tmp_path / "texts.txt").write_text("a cat\na cat\n", encoding="utf-8")
    plan = plan_for(tmp_path, calibrate={"samples": "photos", "texts": "texts.txt"})
    assert is_task_judged(model, plan)
    with pytest.raises(InputError) as err:
        check_task_samples(model, plan)
    assert err.value.what == "texts.txt holds 1 different texts, the task 'match' needs 2 or more"
    assert not is_task_judged(replace(model, parts=model.parts[:1]), plan)
    assert not is_task_judged(model, plan_for(tmp_path, calibrate={"samples": "random"}))
