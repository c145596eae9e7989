"""Vectors of pictures, of texts, and of both together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from anyport.errors import InputError, UsageError
from anyport.task import TaskOptions, check_settings
from anyport.task.embed import Embedder, open_task
from tests.task import blip

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["a cat on the sofa", "", "two"]


def opened(*, projections: bool = True) -> Embedder:
    graphs = blip.graphs("embed")
    if projections:
        graphs.parts |= {part: blip.signature(part) for part in ("image_projection", "text_projection")}
    return open_task(graphs, graphs.settings, TaskOptions())


@pytest.fixture
def task() -> Embedder:
    return opened()


def theirs(values: torch.Tensor, ids: list[int] | None) -> np.ndarray:
    """Return what transformers' encoders make of one picture, or of a text read with it."""
    model = blip.matcher()
    with torch.no_grad():
        seen = model.vision_model(pixel_values=values[None]).last_hidden_state
        if ids is None:
            return np.asarray(seen[0])
        read = model.text_encoder(input_ids=torch.tensor([ids]), encoder_hidden_states=seen)
        return np.asarray(read.last_hidden_state[0])


def test_pictures(task: Embedder) -> None:
    pictures = blip.pictures(12)[:3]
    found = task.embed_pictures(pictures)
    for i, (one, values) in enumerate(zip(found, blip.pixel_values(pictures), strict=True), 1):
        np.testing.assert_allclose(one.states, theirs(values, None), atol=2e-5)
        assert (one.file, one.text, one.token_ids) == (f"picture {i}", None, ())
        assert one.features is not None
        assert np.linalg.norm(one.features) == pytest.approx(1, abs=1e-6)
    assert task.embed_pictures([]) == []


def test_texts(task: Embedder) -> None:
    found = task.embed_texts(TEXTS)
    assert [one.text for one in found] == TEXTS
    for one in found:
        with torch.no_grad():
            expected = blip.matcher().text_encoder(input_ids=torch.tensor([one.token_ids])).last_hidden_state
        np.testing.assert_allclose(one.states, expected[0].numpy(), atol=2e-5)
        assert one.features is not None
    assert found[1].token_ids == (blip.START, blip.SEP)
    assert task.embed_texts([]) == []


def test_pairs(task: Embedder) -> None:
    pictures = blip.pictures(12)[:3]
    found = task.embed_pairs(pictures, TEXTS)
    for one, values in zip(found, blip.pixel_values(pictures), strict=True):
        np.testing.assert_allclose(one.states, theirs(values, list(one.token_ids)), atol=2e-5)
        assert one.features is None
    assert len({one.states.tobytes() for one in task.embed_pairs(pictures, "two")}) == 3
    with pytest.raises(InputError, match="there are 3 pictures and 2 texts"):
        task.embed_pairs(pictures, TEXTS[:2])


def test_without_projections_there_are_states_only() -> None:
    task = opened(projections=False)
    assert task.embed_pictures(blip.pictures(12)[:1])[0].features is None
    assert task.embed_texts(["two"])[0].features is None


def test_words_of_a_command_line(task: Embedder, tmp_path: Path) -> None:
    names = [str(blip.drawn(tmp_path, f"{colour}.png", colour)) for colour in ("red", "blue")]
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat on the sofa\ntwo\n")
    target = tmp_path / "out.npz"
    found = task.answer(names, {"mode": "multimodal", "texts": str(texts), "output": str(target)})
    assert found.lines[-1] == f"  written to {target}"
    assert [answer["text"] for answer in found.record["answers"]] == ["a cat on the sofa", "two"]
    assert [answer["file"] for answer in found.record["answers"]] == names
    pairs = task.embed_pairs(names, ["a cat on the sofa", "two"])
    with np.load(target, allow_pickle=False) as arrays:  # noqa: TID251 -- our own file
        assert arrays["mask"].sum(axis=1).tolist() == [7, 3]
        np.testing.assert_allclose(arrays["states"][1, :3], pairs[1].states, atol=1e-6)
        assert not arrays["states"][1, 3:].any()
        assert "features" not in arrays
    assert "features" in task.answer(names, {}).record["outputs"]
    assert task.answer([], {"mode": "text", "texts": str(texts)}).record["outputs"]["mask"]["shape"] == [2, 7]


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([], {}, "no picture is given"),
        (["a.png"], {"mode": "text"}, "--mode text takes no pictures, 'a.png' is given"),
        ([], {"mode": "text"}, "--mode text needs --texts FILE, one text on each line"),
        (["a.png"], {"mode": "multimodal"}, "--mode multimodal needs --texts FILE"),
        (["a.png"], {"texts": "a.txt"}, "--texts has no effect with --mode image"),
        (["a.png"], {"mode": "both"}, "options of the task 'embed': 'mode': invalid enum value 'both'"),
        (["a.png"], {"output": "a.npy"}, "the output file 'a.npy' must end in .npz"),
    ],
)
def test_wrong_words_are_refused(
    task: Embedder, words: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        task.answer(words, options)
    assert caught.value.what.startswith(message)


def test_settings_are_checked_and_closing_gives_everything_back() -> None:
    parts = {name: blip.signature(name) for name in blip.MODELS["embed"][1]}
    check_settings("embed", blip.settings(), parts)
    with pytest.raises(UsageError, match="the task 'embed' needs a part 'text_encoder'"):
        check_settings("embed", blip.settings(), {"vision_encoder": parts["vision_encoder"]})
    with opened() as task:
        pass
    sessions: dict[str, blip.TorchPart] = task._parts.graphs.sessions  # type: ignore[attr-defined]
    assert not any(session.is_open for session in sessions.values())
