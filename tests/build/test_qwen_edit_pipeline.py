"""Qwen-Image-Edit end to end: the task on exported graphs against diffusers' pipeline of the same folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anyport.bundle import open_bundle
from anyport.bundle.task_proof import MAX_TASK_BYTES, read_task_proof
from anyport.errors import MemoryLimitError
from anyport.recipe import qwen_edit as recipe
from anyport.runtime import open_session
from anyport.task import TaskOptions, edit_networks, edit_plan, edit_windows, memory_policy
from anyport.task.edit_prompt import InstructionReader
from anyport.task.graphs import BundleGraphs
from anyport.task.opening import task_of
from anyport.verify import Status, verify_bundle
from anyport.verify.whole_task import WHOLE_TASK, judge_task, recorded_answers, verify_task
from tests.build.edit_bundle import HOW, build_folder, tiny
from tests.recipe.qwen_folders import write_folder
from tests.task import qwen_edit, test_edit
from tests.task.qwen_edit import Case

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anyport.task.edit import EditedPicture, ImageEditor
    from anyport.task.memory_policy import MemoryPlan
    from anyport.verify import Verdict
    from tests.build.edit_bundle import Built

GUIDED = test_edit.GUIDED


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return tiny(tmp_path_factory)


def opened(built: Built, case: Case, options: TaskOptions | None = None) -> ImageEditor:
    """Open the bundle with the areas and the positions of a case."""
    graphs = BundleGraphs(open_bundle(built.result.path))
    more: dict[str, Any] = {"text": {"positions": case.positions}, "picture": {"vae_area": case.vae_area}}
    settings = dict(graphs.settings)
    graphs.settings = settings | {name: settings[name] | group for name, group in more.items()}
    task: ImageEditor = task_of(graphs, options or TaskOptions())
    return task


def edited(built: Built, case: Case) -> EditedPicture:
    return test_edit.edited(case, opened(built, case))


TINY = [name for name, case in test_edit.CASES.items() if case.model == qwen_edit.TINY]


@pytest.mark.parametrize("name", [name for name in TINY if name != "40 steps"])
def test_the_picture_is_that_of_diffusers(built: Built, name: str) -> None:
    case = test_edit.CASES[name]
    test_edit.assert_equal(edited(built, case), qwen_edit.expected(case))


@pytest.mark.slow
def test_the_picture_is_that_of_diffusers_after_40_steps(built: Built) -> None:
    case = test_edit.CASES["40 steps"]
    test_edit.assert_equal(edited(built, case), qwen_edit.expected(case))


def test_a_user_sees_the_same_picture(built: Built, tmp_path: Path) -> None:
    """The bundle as it is, pictures and latents as files, 8 bits out."""
    case = Case("tiny", test_edit.CHINESE, " ", 4.0, (64, 48), 2, 1024 * 1024)
    [picture] = qwen_edit.pictures_of(case)
    picture.save(tmp_path / "a.png")
    np.save(tmp_path / "noise.npy", case.latents)
    words = {"instruction": case.prompt, "size": "64x48", "steps": 2, "latents": str(tmp_path / "noise.npy")}
    with task_of(BundleGraphs(open_bundle(built.result.path)), TaskOptions()) as task:
        task.answer([str(tmp_path / "a.png")], words | {"output": str(tmp_path / "out.png")})
    found = np.asarray(Image.open(tmp_path / "out.png")).astype(np.int64)
    wanted = (qwen_edit.expected(case) * 255).round().astype(np.int64)
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize(("way", "share"), [("together", 2), ("mapped", 10**6)])
def test_a_memory_limit_changes_no_picture(
    built: Built, way: str, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_policy, "_SHARE", share)  # the graphs are tiny beside what they compute
    plans: list[MemoryPlan] = []
    options = TaskOptions(max_memory_bytes=200 * 10**6, memory_told=plans.append)
    found = test_edit.edited(GUIDED, opened(built, GUIDED, options)).pixels
    assert [set(plan.to_json()["parts"].values()) for plan in plans] == [{way}]
    assert qwen_edit.psnr(found, edited(built, GUIDED).pixels) >= test_edit.LEAST_DB


def test_too_little_memory_for_a_picture_is_named_and_nothing_is_written(
    built: Built, tmp_path: Path
) -> None:
    case = test_edit.CASES[TINY[0]]
    qwen_edit.pictures_of(case)[0].save(tmp_path / "a.png")
    words = {"instruction": case.prompt, "size": "1024x1024", "steps": 2, "output": str(tmp_path / "b.png")}
    options = TaskOptions(max_memory_bytes=20 * 10**6)
    with (
        task_of(BundleGraphs(open_bundle(built.result.path)), options) as task,
        pytest.raises(
            MemoryLimitError, match=r"^the part 'vae_encoder': the run needs more than the memory limit"
        ) as got,
    ):
        task.answer([str(tmp_path / "a.png")], words)
    assert got.value.do == "raise the limit, or read pictures in tiles (--vae-tile 256)"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["bicubic for Lanczos", "guidance x 1.01", "no terminal"])
def test_a_mistake_shows(built: Built, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = qwen_edit.expected(GUIDED)
    test_edit.MISTAKES[name](monkeypatch)
    assert qwen_edit.psnr(edited(built, GUIDED).pixels, wanted) < test_edit.LEAST_DB


@pytest.mark.slow
def test_a_middle_size(tmp_path: Path) -> None:
    """512, 256 and 768 wide; 6, 8 and 6 layers; rotations as published."""
    folder = write_folder(tmp_path / "Mid-Edit", "mid")
    built = build_folder(folder, replace(HOW, max_case_bytes=1 << 20))
    assert built.result.verdicts[-1].status is Status.PASS
    for case in test_edit.MID_SIZE.values():
        test_edit.assert_equal(edited(built, case), qwen_edit.expected(case))


@pytest.mark.slow
def test_the_pipeline_of_one_picture(built: Built, tmp_path: Path) -> None:
    """The pipeline of Qwen-Image-Edit: another template and larger pictures around the same networks."""
    folder = tmp_path / "Tiny-Edit"
    shutil.copytree(built.folder, folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("QwenImageEditPlusPipeline", "QwenImageEditPipeline"))
    model = recipe.load(folder)
    assert model.task_cases is not None
    with open_bundle(built.result.path) as bundle:
        graphs = BundleGraphs(bundle)
        graphs.settings = model.settings
        recorded = list(model.task_cases(model.settings))
        verdict = judge_task(recorded, graphs, "fp32", "anyport verify edit.port")
    assert (len(recorded), verdict.status) == (2, Status.PASS), verdict.table()


@pytest.mark.slow
def test_the_pipeline_of_2511(tmp_path: Path) -> None:
    """Its transformer is told which tokens are the answer's."""
    built = build_folder(write_folder(tmp_path / "Tiny-2511", zero_cond_t=True), HOW)
    case = test_edit.CASES["2511"]
    test_edit.assert_equal(edited(built, case), qwen_edit.expected(case))


# ── the proof that the bundle carries ──────────────────────────────────────────────────────────────────


def test_the_bundle_proves_the_whole_task(built: Built) -> None:
    whole = built.result.verdicts[-1]
    assert (whole.part.name, whole.status) == (WHOLE_TASK, Status.PASS), whole.table()
    assert f"verify: {WHOLE_TASK}   {whole.part.variant}   {whole.summary()}" in built.told
    assert len([line for line in built.told if line.startswith("original: answered '")]) == 7
    with open_bundle(built.result.path) as bundle:
        assert bundle.file("proof/task.safetensors").stat().st_size < MAX_TASK_BYTES / 10
        verdicts = verify_bundle(bundle, open_session)
        assert [verdict.status for verdict in verdicts] == [Status.PASS] * 6
        [alone] = verify_bundle(bundle, open_session, part="vae_decoder")
        assert alone.part.name == "vae_decoder"
    replayed = verdicts[-1]
    found = replayed.to_json()["evaluation"]
    assert (replayed.part.name, len(found["cases"])) == (WHOLE_TASK, 7)
    assert min(case["psnr_db"] for case in found["cases"]) >= 115
    assert max(case["max_levels"] for case in found["cases"]) <= 1
    assert min(case["ssim"] for case in found["cases"]) > 0.999999
    assert set(found["cases"][0]["between_db"]) == {
        "vision_encoder",
        "text_encoder",
        "vae_encoder",
        "transformer",
    }


@pytest.mark.parametrize("name", test_edit.MISTAKES)
def test_the_carried_proof_sees_a_mistake(built: Built, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its small cases alone do: all but the one at the model's own areas."""
    test_edit.MISTAKES[name](monkeypatch)
    verdict = _small_cases(built)
    assert verdict.leg("values").status is Status.FAIL, verdict.table()


def _another_character(patch: pytest.MonkeyPatch) -> None:
    read = InstructionReader.read
    patch.setattr(InstructionReader, "read", lambda self, text, *more: read(self, f"{text}.", *more))


def _pictures_swapped(patch: pytest.MonkeyPatch) -> None:
    seen = edit_plan._seen
    patch.setattr(edit_plan, "_seen", lambda pictures, settings: seen(pictures, settings)[::-1])


def _other_windows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(edit_networks, "window_feeds", _shifted_windows)


def _shifted_windows(grids: Sequence[tuple[int, int]], merge: int, side: int) -> dict[str, np.ndarray]:
    """Shift all windows by one block of patches: others share a window then."""
    feeds = edit_windows.window_feeds(grids, merge, side)
    mask, patches = feeds["window_mask"], feeds["window_patches"]
    flat = patches[mask]
    patches = patches.copy()
    patches[mask] = np.roll(flat, merge * merge)
    slots = np.empty_like(feeds["patch_slots"])
    slots[patches[mask]] = np.flatnonzero(mask.reshape(-1))
    return feeds | {"window_patches": patches, "patch_slots": slots}


@pytest.mark.parametrize("plant", [_another_character, _pictures_swapped, _other_windows])
def test_the_carried_proof_sees_other_words_orders_and_windows(
    built: Built, plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert _small_cases(built).leg("values").status is Status.FAIL


def test_the_carried_proof_sees_other_positions(built: Built) -> None:
    assert _small_cases(built, positions="multimodal").leg("values").status is Status.FAIL


def _small_cases(built: Built, **text: str) -> Verdict:
    """Judge the requests that the bundle carries, but for the one at the model's own areas."""
    with open_bundle(built.result.path) as bundle:
        graphs = BundleGraphs(bundle)
        graphs.settings = dict(graphs.settings) | {"text": graphs.settings["text"] | text}
        recorded = recorded_answers(*read_task_proof(bundle))[:-1]
        return judge_task(recorded, graphs, "fp32", "anyport verify edit.port")


def test_another_graph_fails_the_whole_task(built: Built) -> None:
    class Louder:
        """A decoder whose pictures are a little brighter."""

        def __init__(self, graph: Any) -> None:
            self.session, self.name = open_session(graph), graph.part_name
            self.inputs, self.outputs, self.close = (
                self.session.inputs,
                self.session.outputs,
                self.session.close,
            )

        def run(self, feeds: Any) -> Any:
            found = self.session.run(feeds)
            if self.name == "vae_decoder":
                found["image"] = found["image"] + np.float32(1e-5)
            return found

    with open_bundle(built.result.path) as bundle:
        verdict = verify_task(bundle, Louder)
    assert verdict is not None
    assert verdict.status is Status.FAIL
    assert verdict.leg("between").status is Status.PASS  # each part before it is right
