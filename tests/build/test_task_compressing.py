from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest

from anyport.build import build, task_compressing
from anyport.build.compressing import Variant
from anyport.build.task_compressing import compress_task
from anyport.bundle import open_bundle, seal_bundle
from anyport.bundle.manifest import decode_manifest
from anyport.compress.quantizing import quantize
from anyport.compress.task_samples import TaskSamples
from anyport.errors import CompressError, SessionError
from anyport.report import CheckSettings, Mark, release_checklist
from anyport.runtime import open_session
from anyport.verify import MIN_SAMPLES, Evaluation, Status, metric_line, record, verify_bundle
from anyport.verify import tasks as verify_tasks
from anyport.verify.tasks import measure_task
from tests.build.building import silent
from tests.build.compressed_captioner import (
    METHOD,
    N_PICTURES,
    NAME,
    PARTS,
    Built,
    build_captioner,
    plan_for,
    quickly,
)
from tests.build.trained_blip import write_pictures
from tests.recipe.blip_folders import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.bundle import Bundle
    from anyport.compress.compressing import CompressRequest
    from anyport.compress.compression import Compression
    from anyport.compress.methods import Method
    from anyport.compress.quantizing import Quantized
    from anyport.compress.ranges import Range
    from anyport.compress.samples import Samples
    from anyport.runtime import Session
    from anyport.verify import Recording


@pytest.fixture(autouse=True)
def _quick_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_compressing, "compress_graph", quickly)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_captioner(tmp_path_factory.mktemp("blip"))


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

    costs = {"vision_encoder": 0.1, "cross_keys": 0.7, "text_decoder": 0.4}

    def costing(graph: Path, output: Path, request: CompressRequest) -> Compression:
        """Give each part its cost in what the task answers; what it gives on the way does not count."""
        found = built.ready(graph, output, request)
        cost = costs[graph.parents[1].name]
        measures = (
            replace(one, used=1 - cost if "/" in one.output else cost) for one in found.evaluation.measures
        )
        return replace(found, evaluation=Evaluation(tuple(measures)))

    monkeypatch.setattr(task_compressing, "evaluate", judged)
    monkeypatch.setattr(task_compressing, "compress_graph", costing)
    bundle, proven = built.copy(tmp_path)
    lines: list[str] = []
    variant = compress_task(
        built.model, proven, plan_for(built.folder), METHOD, lambda _, text: lines.append(text)
    )
    dropped = [line.split()[0] for line in lines if "together do not hold the metric: 'tokens'" in line]
    assert dropped == ["cross_keys", "text_decoder"]
    assert list(variant.found) == ["vision_encoder"]
    assert list(bundle.glob(f"parts/*/{NAME}")) == [bundle / "parts" / "vision_encoder" / NAME]


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


def test_a_variant_whose_numbers_are_not_finite_does_not_pass(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Evaluation:
        raise SessionError("the decoder's scores are not finite")

    monkeypatch.setattr(task_compressing, "evaluate", broken)
    monkeypatch.setattr(task_compressing, "compress_graph", built.ready)
    _, proven = built.copy(tmp_path)
    with pytest.raises(CompressError) as err:
        compress_task(built.model, proven, plan_for(built.folder), METHOD, silent)
    assert err.value.what.endswith("95 % needed: the decoder's scores are not finite")


def test_copies_of_a_picture_do_not_judge(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskSamples, "spread", lambda own, _: replace(own, places=own.places[:40] * 2))
    _, proven = built.copy(tmp_path)
    with pytest.raises(CompressError) as err:
        compress_task(built.model, proven, plan_for(built.folder), METHOD, silent)
    assert err.value.what == f"{METHOD}: 40 of 80 pictures that judge are different ones, 64 are needed"


def test_pictures_whose_choices_are_unclear_do_not_judge(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskSamples, "margin", lambda _, place: 0.0 if place in {3, 50} else 1.0)
    monkeypatch.setattr(task_compressing, "compress_graph", built.ready)
    _, proven = built.copy(tmp_path)
    lines: list[str] = []
    variant = compress_task(
        built.model, proven, plan_for(built.folder), METHOD, lambda _, text: lines.append(text)
    )
    metric = variant.entry.metric
    assert metric is not None
    assert metric.n_samples == N_PICTURES - 2
    words = "2 pictures do not judge: the exact model's two best choices are as close as rounding"
    assert lines[1] == words
    assert metric.note.endswith(f"; {words}")


def test_how_many_are_recorded_is_said_where_that_is_not_all(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that has hardly any room keeps 64, and not the first ones."""
    recorded: list[tuple[int, ...]] = []

    def noted(trial: Session, samples: TaskSamples, *more: Any) -> Recording:
        recorded.append(samples.places)
        return record(trial, samples, *more)

    monkeypatch.setattr(task_compressing, "record", noted)
    monkeypatch.setattr(task_compressing, "n_recorded", lambda *_: MIN_SAMPLES)
    monkeypatch.setattr(task_compressing, "compress_graph", built.ready)
    _, proven = built.copy(tmp_path)
    lines: list[str] = []
    variant = compress_task(
        built.model, proven, plan_for(built.folder), METHOD, lambda _, text: lines.append(text)
    )
    assert lines[1] == "64 of these 72 judge, evenly spread: a bundle has 19 MB for them"
    [places] = recorded
    assert len(places) == MIN_SAMPLES
    assert sum(place < N_PICTURES // 2 for place in places) == MIN_SAMPLES // 2
    metric = variant.entry.metric
    assert metric is not None
    assert metric.n_samples == MIN_SAMPLES


def test_too_few_clear_choices_are_refused(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_compressing, "clear_margin", lambda _: 1e9)
    bundle, proven = built.copy(tmp_path)
    with pytest.raises(CompressError) as err:
        compress_task(built.model, proven, plan_for(built.folder), METHOD, silent)
    assert err.value.what == (
        f"{METHOD}: 0 of photos (72 pictures) (72 of 72) are clear enough to judge by, 64 are needed"
    )
    assert err.value.where == (
        "72 pictures do not judge: the exact model's two best choices are as close as rounding"
    )
    assert not list(bundle.glob(f"parts/*/{NAME}"))


@pytest.mark.slow
def test_the_release_list_measures_the_task_once(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(bundle: Bundle, variant: str, *more: Any) -> dict[str, Evaluation]:
        calls.append(variant)
        return measure_task(bundle, variant, *more)

    monkeypatch.setattr(verify_tasks, "measure_task", noted)
    with open_bundle(built.result.path) as bundle:
        for variant in (NAME, "fp32"):
            settings = CheckSettings(variant=variant, n_runs=2, soak_s=0.5)
            found = release_checklist(bundle, settings)
            marks = {line.name: line.mark for line in found.lines}
            assert marks["batch sizes"] is Mark.PASS
            assert Mark.FAIL not in marks.values(), found.text()
    assert calls == [NAME]


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
