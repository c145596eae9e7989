"""diffusers' own pipeline around the networks of a folder, as a recipe runs it for the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as plus
import pytest
from PIL import Image

from anyport.recipe import qwen_edit
from anyport.task.edit_rehearsal import words_of
from anyport.task.rehearsals import rehearse
from tests.recipe.qwen_folders import write_folder
from tests.task import qwen_edit as reference
from tests.task.qwen_edit import Case

if TYPE_CHECKING:
    from anyport.recipe import Model
    from anyport.task.rehearsals import TaskAnswer, TaskRequest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return qwen_edit.load(write_folder(tmp_path_factory.mktemp("folder") / "Tiny-Edit"))


def answers(model: Model, settings: Any, n: int) -> list[tuple[TaskRequest, TaskAnswer]]:
    assert model.task_cases is not None
    return [found for found, _ in zip(model.task_cases(settings), range(n), strict=False)]


@pytest.fixture(scope="module")
def found(model: Model) -> list[tuple[TaskRequest, TaskAnswer]]:
    return answers(model, model.settings, 6)


def test_the_requests_differ_in_what_matters(found: list[tuple[TaskRequest, TaskAnswer]]) -> None:
    asked = [request for request, _ in found]
    assert {len(one.pictures) for one in asked} == {1, 2, 3}
    assert {words_of(one).guidance > 1 for one in asked} == {True, False}
    assert any(not words_of(one).instruction.isascii() for one in asked)
    assert any(not words_of(one).instruction for one in asked)
    assert any((words_of(one).width, words_of(one).height) == (16, 16) for one in asked)
    for request, answer in found:
        assert answer.picture.shape == (words_of(request).height, words_of(request).width, 3)
        assert answer.picture.std() > 0.02
    between = found[0][1].between
    assert list(between) == ["vision_encoder", "text_encoder", "vae_encoder", "transformer"]
    assert not any(answer.between for _, answer in found[1:])


def test_it_is_the_pipeline_of_the_same_networks(
    found: list[tuple[TaskRequest, TaskAnswer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one, made of the seeds that the folder was written from."""
    request, answer = found[0]
    words = words_of(request)
    case = Case("own", words.instruction, words.negative, words.guidance, (words.width, words.height))
    own = [Image.fromarray(one) for one in request.pictures]
    monkeypatch.setattr(plus, "CONDITION_IMAGE_SIZE", words.condition_area)
    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", words.vae_area)
    asked = {"image": own, "num_inference_steps": words.steps}
    monkeypatch.setattr(reference, "pictures_of", lambda _: own)
    pipe, noise = reference.pipeline(), reference.torch.from_numpy(request.arrays["latents"].copy())
    with reference.torch.no_grad():
        wanted = pipe(**(reference.words_of(case) | asked | {"latents": noise})).images[0]
    assert reference.psnr(answer.picture, wanted) > 125  # where weights lie in memory changes the last bits


def test_nothing_of_diffusers_is_changed_afterwards(model: Model) -> None:
    before = plus.CONDITION_IMAGE_SIZE, plus.VAE_IMAGE_SIZE
    settings = {**model.settings, "text": {**model.settings["text"], "positions": "multimodal"}}
    plain, other = answers(model, model.settings, 1)[0][1], answers(model, settings, 1)[0][1]
    assert reference.psnr(other.picture, plain.picture) < 100  # other positions give another picture
    again = answers(model, model.settings, 1)[0][1]
    assert reference.psnr(again.picture, plain.picture) > 125
    assert before == (plus.CONDITION_IMAGE_SIZE, plus.VAE_IMAGE_SIZE)


LIGHTNING = {"base_shift": 1.0986123, "max_shift": 1.0986123, "terminal": 0}


def test_it_follows_the_users_schedule(model: Model) -> None:
    """As few-step adapters need it; the task does with the same settings what the pipeline does."""
    settings = {**model.settings, "schedule": LIGHTNING}
    [(request, answer)] = answers(model, settings, 1)
    plain = answers(model, model.settings, 1)[0][1]
    assert reference.psnr(answer.picture, plain.picture) < 60
    graphs = reference.graphs(schedule=LIGHTNING)
    assert reference.psnr(rehearse(graphs, request).picture, answer.picture) >= 115
