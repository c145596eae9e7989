"""The task ``edit`` against diffusers' pipeline: a tiny seeded one, whose parts PyTorch runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from anyport.errors import CancelledError
from anyport.task import TaskOptions, edit, edit_networks, edit_rope
from anyport.task.edit_plan import Editing
from anyport.task.edit_windows import window_feeds
from anyport.task.opening import task_of
from tests.task import qwen_edit
from tests.task.qwen_edit import Case

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anyport.task.edit import EditedPicture, ImageEditor

LEAST_DB = 115.0

CHINESE = "把白色T恤换成黑色,并添加'新品上市'文字"
CASES = {
    "1 picture, guidance": Case("f", "make the sky red, and add a hat", "blurry", 4.0, (256, 256)),
    "1 picture, none": Case("f", "make the sky red, and add a hat", None, 1.0, (416, 160)),
    "2 pictures, odd grid": Case("t,f", "swap the two", "blurry, low quality", 4.0, (240, 208)),
    "2 pictures, none": Case("t,f", "swap the two", None, 1.0, (192, 320)),
    "3 pictures, Chinese": Case("t,f,g", CHINESE, " ", 2.5, (176, 272)),
    "3 pictures, multimodal": Case("g,f,t", CHINESE, "blurry", 4.0, (336, 208), positions="multimodal"),
    "512x100 and 100x400": Case("strip,tall", "join them", "blurry", 4.0, (160, 160), 4),
    "37x53": Case("tiny", "enlarge", "blurry", 4.0, (192, 192), 4),
    "no words": Case("f", "", "", 4.0, (192, 192), 4),
    "1,000 characters": Case("f", "Put the cat on the table. " * 40, "blurry", 4.0, (192, 192), 4),
    "one token": Case("f", "x", "y", 4.0, (16, 16), 4),
    "narrow": Case("f", "x", None, 1.0, (512, 16), 4),
    "2511": Case("f,t", "make it blue", "blurry", 4.0, (208, 240), model=qwen_edit.TINY_2511),
    "40 steps": Case("f", "make it blue", "blurry", 4.0, (192, 192), 40),
}
GUIDED, MULTIMODAL = CASES["2 pictures, odd grid"], CASES["3 pictures, multimodal"]


def opened(case: Case | None = None, **more: dict[str, Any]) -> ImageEditor:
    of_case, model = {}, qwen_edit.TINY if case is None else case.model
    if case is not None:
        of_case = {"text": {"positions": case.positions}, "picture": {"vae_area": case.vae_area}}
    task: ImageEditor = task_of(qwen_edit.graphs(model, **(of_case | more)), TaskOptions())
    return task


def sessions(task: ImageEditor) -> dict[str, qwen_edit.TorchPart]:
    return task._parts.graphs.sessions  # type: ignore[attr-defined, no-any-return]


def how(case: Case, **more: Any) -> Editing:
    words = {
        "negative": case.negative,
        "guidance": case.guidance,
        "steps": case.steps,
        "latents": case.latents,
        "size": case.size,
        "max_length": 0,
    }
    return Editing(**(words | more))


def edited(case: Case, task: ImageEditor | None = None) -> EditedPicture:
    with task or opened(case) as editor:
        return editor.edit(qwen_edit.pictures_of(case), case.prompt, how(case))


def assert_equal(found: EditedPicture, wanted: np.ndarray) -> None:
    assert qwen_edit.psnr(found.pixels, wanted) >= LEAST_DB
    levels = (wanted * 255).round().astype(np.int64)
    assert np.abs(np.asarray(found.image).astype(np.int64) - levels).max() <= 1


@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_that_of_diffusers(name: str) -> None:
    assert_equal(edited(CASES[name]), qwen_edit.expected(CASES[name]))


@pytest.mark.slow
def test_the_picture_is_that_of_diffusers_at_the_true_area() -> None:
    case = Case("t,f", "swap the two", "blurry", 4.0, (512, 512), 2, 1024 * 1024)
    assert_equal(edited(case), qwen_edit.expected(case))


MID_SIZE = {
    "1 picture": Case("f", "make the sky red", "blurry", 4.0, (208, 240), 4, model="mid"),
    "3 pictures": Case("g,f,t", CHINESE, None, 1.0, (176, 272), 4, positions="multimodal", model="mid"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MID_SIZE)
def test_the_picture_is_that_of_diffusers_in_a_middle_size(name: str) -> None:
    assert_equal(edited(MID_SIZE[name]), qwen_edit.expected(MID_SIZE[name]))


# ── the comparison can fail: one mistake at a time ─────────────────────────────────────────────────────

Patch = pytest.MonkeyPatch


def _more_guidance(patch: Patch) -> None:
    right = edit.guided
    patch.setattr(edit, "guided", lambda a, b, scale: right(a, b, scale * 1.01))


def _no_rescale(patch: Patch) -> None:
    patch.setattr(edit, "guided", lambda a, b, scale: b + np.float32(scale) * (a - b))


def _bicubic(patch: Patch) -> None:
    right, lanczos = Image.Image.resize, Image.Resampling.LANCZOS

    def resize(image: Image.Image, size: Any, kind: Any = None) -> Image.Image:
        return right(image, size, Image.Resampling.BICUBIC if kind == lanczos else kind)

    patch.setattr(Image.Image, "resize", resize)


def _one_frame(patch: Patch) -> None:
    right = edit_rope._places
    patch.setattr(edit_rope, "_places", lambda _, grid: right(0, grid))


def _text_behind_the_answer(patch: Patch) -> None:
    right = edit_networks.rope_tables

    def tables(grids: Sequence[tuple[int, int]], n_text: int, settings: Any) -> dict[str, np.ndarray]:
        of_answer = right(grids[:1], n_text, settings)
        return right(grids, n_text, settings) | {name: of_answer[name] for name in ("txt_cos", "txt_sin")}

    patch.setattr(edit_networks, "rope_tables", tables)


def _doubled_length(patch: Patch) -> None:
    right = edit.sigmas
    patch.setattr(edit, "sigmas", lambda n, tokens, settings: right(n, 2 * tokens, settings))


def _no_terminal(patch: Patch) -> None:
    right = edit.sigmas
    patch.setattr(edit, "sigmas", lambda n, k, own: right(n, k, msgspec.structs.replace(own, terminal=None)))


def _patches_in_rows(patch: Patch) -> None:
    right = edit_networks.window_feeds

    def feeds(grids: Sequence[tuple[int, int]], merge: int, side: int) -> dict[str, np.ndarray]:
        found = right(grids, merge, side)
        return found | {"patch_positions": right(grids, 1, side)["patch_positions"]}

    patch.setattr(edit_networks, "window_feeds", feeds)


MISTAKES: dict[str, Callable[[Patch], None]] = {
    "guidance x 1.01": _more_guidance,
    "guidance without rescaling": _no_rescale,
    "bicubic for Lanczos": _bicubic,
    "all pictures at one frame": _one_frame,
    "shift of the doubled length": _doubled_length,
    "no terminal": _no_terminal,
    "patches row by row": _patches_in_rows,
}


@pytest.mark.parametrize("case", [GUIDED, MULTIMODAL], ids=["plain", "multimodal"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_shows(name: str, case: Case, monkeypatch: Patch) -> None:
    wanted = qwen_edit.expected(case)
    MISTAKES[name](monkeypatch)
    assert qwen_edit.psnr(edited(case).pixels, wanted) < LEAST_DB


def test_text_placed_behind_the_answer_alone_shows(monkeypatch: Patch) -> None:
    wanted = qwen_edit.expected(GUIDED)
    _text_behind_the_answer(monkeypatch)
    assert qwen_edit.psnr(edited(GUIDED).pixels, wanted) < LEAST_DB


def _without_windows(feeds: qwen_edit.Tensors) -> None:
    """Make each picture one window."""
    counts = torch.bincount(feeds["picture_ids"])
    grids = [(2, int(n) // 2) for n in counts]
    for name, array in window_feeds(grids, 2, 1 << 10).items():
        if "window" in name or "slots" in name:
            feeds[name] = torch.from_numpy(array)


@pytest.mark.parametrize("case", [GUIDED, MULTIMODAL], ids=["plain", "multimodal"])
def test_other_words_places_and_orders_show(case: Case) -> None:
    wanted, pictures = qwen_edit.expected(case), qwen_edit.pictures_of(case)
    other = "plain" if case.positions == "multimodal" else "multimodal"
    with opened(case) as task:
        one_more = task.edit(pictures, f"{case.prompt}.", how(case))
        swapped = task.edit([pictures[1], pictures[0], *pictures[2:]], case.prompt, how(case))
        sessions(task)["vision_encoder"].spoil = _without_windows
        task.networks.remembered.forget()
        unwindowed = task.edit(pictures, case.prompt, how(case))
    with opened(case, text={"positions": other}) as task:
        elsewhere = task.edit(pictures, case.prompt, how(case))
    for found in (one_more, swapped, unwindowed, elsewhere):
        assert qwen_edit.psnr(found.pixels, wanted) < LEAST_DB


# ── a region ───────────────────────────────────────────────────────────────────────────────────────────

REGION = Case("g,f", "make it blue", "blurry", 4.0, (256, 256), 4)  # the first picture is 400 x 400
BOX = (37, 50, 210, 301)


def _free_pixels() -> np.ndarray:
    region = np.zeros((400, 400), np.bool_)
    region[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    return region


@pytest.fixture(scope="module")
def masked_by_diffusers() -> np.ndarray:
    """Its pipeline, with the input's latents laid around the region after every step."""
    pipe, noise = qwen_edit.pipeline(), torch.from_numpy(REGION.latents)
    first = qwen_edit.pictures_of(REGION)[0]
    pixels = pipe.image_processor.preprocess(first, 256, 256)[:, :, None]
    with torch.no_grad():
        clean = pipe._encode_vae_image(pixels, None)
    clean = pipe._pack_latents(clean, 1, 16, 32, 32)
    squares = [[_touches(row, column) for column in range(16)] for row in range(16)]
    free = torch.tensor(squares).reshape(1, 256, 1)

    def keep(own: Any, step: int, _: Any, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        sigma = own.scheduler.sigmas[step + 1]
        return {"latents": torch.where(free, found["latents"], (1 - sigma) * clean + sigma * noise)}

    with qwen_edit.changed(REGION), torch.no_grad():
        found = pipe(
            **qwen_edit.words_of(REGION),
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=["latents"],
        )
    picture: np.ndarray = found.images[0]
    return picture


def _touches(row: int, column: int) -> bool:
    """Say whether a square of 25 x 25 of the 400 x 400 pixels holds any of the box."""
    return bool(_free_pixels()[row * 25 : row * 25 + 25, column * 25 : column * 25 + 25].any())


def test_only_the_region_changes(masked_by_diffusers: np.ndarray, tmp_path: Path) -> None:
    pictures = qwen_edit.pictures_of(REGION)
    mask = Image.fromarray(_free_pixels().astype(np.uint8) * 255)
    with opened(REGION) as task:
        found = task.edit(pictures, REGION.prompt, how(REGION, size=None, box=BOX))
        by_mask = task.edit(pictures, REGION.prompt, how(REGION, size=None, mask=mask))
        everywhere = task.edit(pictures, REGION.prompt, how(REGION))
        files = [str(tmp_path / f"{i}.png") for i in range(2)]
        for file, picture in zip(files, pictures, strict=True):
            picture.save(file)
        mask.save(tmp_path / "mask.png")
        np.save(tmp_path / "noise.npy", REGION.latents)
        words = {"negative": "blurry", "steps": 4, "instruction": REGION.prompt, "guidance": 4.0}
        words |= {"mask": str(tmp_path / "mask.png"), "latents": str(tmp_path / "noise.npy")}
        task.answer(files, words | {"output": str(tmp_path / "out.webp")})
    assert qwen_edit.psnr(found.pixels, masked_by_diffusers) >= LEAST_DB
    assert qwen_edit.psnr(everywhere.pixels, masked_by_diffusers) < LEAST_DB  # the mask dropped
    original, answer, region = np.asarray(pictures[0]), np.asarray(found.image), _free_pixels()
    assert np.array_equal(answer[~region], original[~region])
    assert (answer[region] != original[region]).any(axis=-1).mean() > 0.9
    assert np.array_equal(answer, np.asarray(by_mask.image))
    assert np.array_equal(answer, np.asarray(Image.open(tmp_path / "out.webp")))


def test_a_region_of_another_grid_shows(masked_by_diffusers: np.ndarray, monkeypatch: Patch) -> None:
    right = edit.free_tokens
    monkeypatch.setattr(edit, "free_tokens", lambda region, grid: np.roll(right(region, grid), 1, axis=1))
    with opened(REGION) as task:
        found = task.edit(qwen_edit.pictures_of(REGION), REGION.prompt, how(REGION, size=None, box=BOX))
    assert qwen_edit.psnr(found.pixels, masked_by_diffusers) < LEAST_DB


# ── sizes, seeds, passes, what is remembered ───────────────────────────────────────────────────────────

FLOWER = "f"
QUICK = Editing(steps=2, guidance=1.0, size=(64, 48))


def flower() -> Image.Image:
    return qwen_edit.photographs()["f"]


def test_the_answer_has_the_size_that_was_asked_for() -> None:
    with opened() as task:
        plain = task.edit([flower()], "x", QUICK)
        odd = task.edit([flower()], "x", Editing(steps=2, guidance=1.0, size=(70, 50)))
        default = task.plan([flower()], "x")
    assert plain.image.size == (64, 48)
    assert plain.notes == ()
    assert odd.image.size == (70, 50)
    assert odd.pixels.shape == (48, 64, 3)
    assert odd.notes == ("computed at 64 x 48, resized to 70 x 50",)
    assert np.array_equal(odd.pixels, plain.pixels)
    assert default.output.given == (320, 224)  # 640 x 427 at the area of 256 x 256


def test_the_same_seed_gives_the_same_picture() -> None:
    with opened() as task:
        found = [task.edit([flower()], "x", Editing(2, 1.0, 2, seed, size=(64, 48))) for seed in (0, 0, 1)]
    assert np.array_equal(found[0].pixels, found[1].pixels)
    assert not np.array_equal(found[0].pixels, found[2].pixels)


def test_the_transformer_runs_twice_in_a_step_only_with_guidance() -> None:
    for guidance, negative, n_runs in ((4.0, "blurry", 4), (4.0, None, 2), (1.0, "blurry", 2), (0.5, "", 2)):
        with opened() as task:
            found = task.edit([flower()], "x", Editing(negative, guidance, 2, size=(64, 48)))
            assert sessions(task)["transformer"].n_runs == n_runs
            assert sessions(task)["vision_encoder"].n_runs == 1
            dropped = negative is not None and guidance <= 1
            wanted = f"guidance is {guidance:g}: the negative prompt does not count"
            assert found.notes == ((wanted,) if dropped else ())
    with opened(sampling={"negative": " "}) as task:
        task.edit([flower()], "x", Editing(steps=2, size=(64, 48)))
        assert sessions(task)["transformer"].n_runs == 4


def test_prompts_are_remembered() -> None:
    with opened() as task:
        first = task.edit([flower()], "x", QUICK)
        again = task.edit([flower()], "x", QUICK)
        assert np.array_equal(first.pixels, again.pixels)
        runs = {name: one.n_runs for name, one in sessions(task).items()}
        assert (runs["vision_encoder"], runs["text_encoder"]) == (1, 1)
        task.edit([flower()], "y", QUICK)
        runs = {name: one.n_runs for name, one in sessions(task).items()}
        assert (runs["vision_encoder"], runs["text_encoder"]) == (1, 2)
        task.edit([flower().rotate(180)], "y", QUICK)
        runs = {name: one.n_runs for name, one in sessions(task).items()}
        assert (runs["vision_encoder"], runs["text_encoder"]) == (2, 3)


def test_long_instructions_are_cut_and_it_is_said() -> None:
    words = "Put the cat on the table. " * 40
    with opened() as task:
        found = task.edit([flower()], words, QUICK)
        n = task.plan([flower()], words, QUICK).prompts[0].n_found
        assert found.notes[0].startswith(f"the instruction has {n} tokens, 128 are used; cut off: '")
        tokens = task.plan([flower()], words, QUICK).prompts[0].tokens
        assert len(tokens) == 128
        assert len(task.plan([flower()], "ab " * 3334, QUICK).prompts[0].tokens) == 128
        whole = task.plan([flower()], words, Editing(max_length=0))
        assert (len(whole.prompts[0].tokens), whole.notes) == (n, ())


# ── progress and stopping ──────────────────────────────────────────────────────────────────────────────


def test_steps_can_be_watched_and_stopped() -> None:
    seen: list[tuple[int, int]] = []
    three = Editing(steps=3, guidance=1.0, size=(32, 32))
    with opened() as task:
        task.edit([flower()], "x", three, progress=lambda n, of: seen.append((n, of)))
        assert seen == [(1, 3), (2, 3), (3, 3)]
        for n_wanted in (0, 1, 3):
            seen.clear()
            with pytest.raises(CancelledError) as caught:
                task.edit(
                    [flower()],
                    "x",
                    three,
                    progress=lambda n, of: seen.append((n, of)),
                    cancel=lambda: len(seen) == n_wanted,  # noqa: B023 -- called at once
                )
            assert caught.value.what == f"the edit was cancelled after {n_wanted} of 3 steps"
            assert len(seen) == n_wanted
        assert sessions(task)["vae_decoder"].n_runs == 1
