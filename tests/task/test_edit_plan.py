"""What is read and checked before anything is computed; the texts of what is refused stand in test_edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.errors import InputError
from anyport.task.edit_plan import Editing, EditPlan, plan_edit
from anyport.task.edit_prompt import InstructionReader
from anyport.task.edit_settings import editor_settings
from anyport.task.edit_sizes import OutputSize
from tests.task import qwen_edit
from tests.task.test_colour_profile import PROFILE

if TYPE_CHECKING:
    from PIL import Image

PARTS = {part: qwen_edit.signature(part) for part in qwen_edit.FORMS}


def planned(pictures: list[Any], how: Editing | None = None, **more: dict[str, Any]) -> EditPlan:
    graphs = qwen_edit.graphs(**more)
    settings = editor_settings(graphs.settings, PARTS)
    return plan_edit(pictures, "x", how or Editing(), settings, InstructionReader(graphs, settings.text))


def photo(name: str = "f") -> Image.Image:
    return qwen_edit.photographs()[name]


def test_the_bundle_says_what_the_user_does_not() -> None:
    plan = planned([photo()], sampling={"steps": 7, "guidance": 2.5, "negative": "blurry"})
    assert (plan.n_steps, plan.guidance, len(plan.prompts)) == (7, 2.5, 2)
    plan = planned([photo()], Editing(guidance=1.0), sampling={"negative": "blurry"})
    assert (plan.guidance, len(plan.prompts), plan.notes) == (1.0, 1, ())
    plan = planned([photo()], Editing("dark", 3.0, 4), sampling={"negative": "blurry"})
    assert (plan.n_steps, plan.guidance, len(plan.prompts)) == (4, 3.0, 2)


def test_the_last_picture_decides_on_the_size_and_the_first_on_the_profile() -> None:
    first = photo("tall").copy()
    first.info["icc_profile"] = PROFILE
    plan = planned([first, photo("strip")])
    assert plan.output == OutputSize((576, 128), (576, 128))
    assert plan.pictures[0].profile == PROFILE
    assert plan.notes == ("picture 2 has another colour profile than picture 1: the answer has the latter's",)
    assert plan.noise.shape == (1, 36 * 8, 64)


def test_with_a_region_the_first_picture_decides() -> None:
    plan = planned([photo("g"), photo("strip")], Editing(box=(0, 0, 10, 10)))
    assert plan.output == OutputSize((256, 256), (400, 400))
    assert plan.notes == ("computed at 256 x 256, resized to 400 x 400",)
    assert plan.region is not None
    assert plan.region.sum() == 100
    same = planned([photo("g")], Editing(box=(0, 0, 10, 10), size=(400, 400)))
    assert same.output == plan.output


def test_given_latents_take_the_place_of_the_seed() -> None:
    noise = np.full((1, 16, 64), 0.5, np.float32)
    plan = planned([photo()], Editing(latents=noise, size=(64, 64)))
    assert np.array_equal(plan.noise, noise)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_the_model_sees_rgb(mode: str) -> None:
    assert planned([photo().convert(mode)]).pictures[0].image.mode == "RGB"


def test_a_picture_of_few_pixels_is_named() -> None:
    plan = planned([photo("tiny"), np.zeros((31, 40), np.uint8)])
    assert plan.notes == ("picture 2 is 40 x 31 pixels: the model sees it much enlarged",)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"steps": "7"}, "steps is '7', it must be a whole number"),
        ({"steps": 3.7}, "steps is 3.7, it must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5, it must be a whole number"),
        ({"guidance": "4"}, "guidance is '4', it must be a number"),
        ({"size": (112,)}, "size is (112,), it must be (width, height)"),
        ({"size": (112.5, 80)}, "size is 112.5, it must be whole numbers"),
        ({"size": "64x48"}, "size is '64x48', it must be (width, height)"),
        ({"box": (0, 0, 5.5, 9)}, "box is 5.5, it must be whole numbers"),
        ({"vae_tile": "big"}, "vae_tile is 'big', it must be a whole number"),
    ],
)
def test_what_has_another_type_is_refused(words: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError) as caught:
        Editing(**words)
    assert caught.value.what == what


def test_numbers_of_numpy_are_numbers() -> None:
    how = Editing(steps=np.int64(2), guidance=np.float32(1.5), size=(np.int32(64), 48))  # type: ignore[arg-type]
    assert planned([photo()], how).n_steps == 2


@pytest.mark.parametrize("instruction", ["", " \n\t"])
def test_an_instruction_without_words_is_noted(instruction: str) -> None:
    graphs = qwen_edit.graphs()
    settings = editor_settings(graphs.settings, PARTS)
    reader = InstructionReader(graphs, settings.text)
    plan = plan_edit([photo()], instruction, Editing(), settings, reader)
    assert "the instruction has no words: the model alone decides what to change" in plan.notes


def test_an_answer_beyond_64_megapixels_is_refused() -> None:
    with pytest.raises(InputError, match="the size 8001 x 8000 is more than 64 million pixels"):
        planned([photo()], Editing(size=(8001, 8000)))
