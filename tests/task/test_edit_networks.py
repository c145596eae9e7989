"""Each part alone, fed by the host side, against the tensors inside the PyTorch pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from anyport.errors import InputError
from anyport.task import TaskOptions
from anyport.task.edit_plan import Editing
from anyport.task.opening import task_of
from tests.task import qwen_edit
from tests.task.qwen_edit import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyport.task.edit import ImageEditor

CASE = Case("t,f", "swap the two", "blurry, low quality", 4.0, (240, 208), 2)


class _Seen(Exception):  # noqa: N818 -- it stops the pipeline, nothing is wrong
    pass


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """What the transformer of the pipeline is fed first."""
    pipe = qwen_edit.pipeline()

    def stop(_: Any, __: Any, words: dict[str, Any]) -> None:
        raise _Seen(words)

    hook = pipe.transformer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with qwen_edit.changed(CASE), torch.no_grad():
            pipe(**qwen_edit.words_of(CASE))
    except _Seen as seen:
        found: dict[str, Any] = seen.args[0]
        return found
    finally:
        hook.remove()
    raise AssertionError


@pytest.fixture
def task() -> Iterator[ImageEditor]:
    with task_of(qwen_edit.graphs(), TaskOptions()) as opened:
        yield opened


def test_states_latents_and_tables_are_those_of_the_pipeline(
    task: ImageEditor, theirs: dict[str, Any]
) -> None:
    how = Editing(CASE.negative, CASE.guidance, 2, latents=CASE.latents, size=CASE.size)
    plan, networks = task.plan(qwen_edit.pictures_of(CASE), CASE.prompt, how), task.networks
    states = networks.prompt_states(plan)
    wanted = theirs["encoder_hidden_states"].numpy()
    assert len(states) == 2
    assert states[0].shape == wanted.shape
    assert np.abs(states[0] - wanted).max() < 1e-5 * np.abs(wanted).max()
    hidden = np.concatenate([plan.noise, networks.reference_latents(plan)], axis=1)
    latents = theirs["hidden_states"].numpy()
    assert hidden.shape == latents.shape
    assert np.abs(hidden - latents).max() < 1e-5 * np.abs(latents).max()
    rope = qwen_edit.pipeline().transformer.pos_embed
    shapes = theirs["img_shapes"]
    assert shapes[0][0] == (1, 13, 15)
    pictures, text = rope(shapes, max_txt_seq_len=wanted.shape[1])
    tables = networks.tables(plan, wanted.shape[1])
    assert np.abs(tables["img_cos"] - pictures.real.numpy()).max() < 2e-7
    assert np.abs(tables["txt_sin"] - text.imag.numpy()).max() < 2e-7


@pytest.mark.parametrize(
    ("part", "dims", "message"),
    [
        (
            "vae_encoder",
            {"width": "32..128:16"},
            "picture 1: the part 'vae_encoder' would see width = 320, it takes 32..128:16",
        ),
        (
            "vae_decoder",
            {"latent_height": "2..8:2"},
            "the answer's size: the part 'vae_decoder' would see latent_height = 28, it takes 2..8:2",
        ),
        (
            "text_encoder",
            {"sequence": "1..100"},
            "the instruction with its pictures: the part 'text_encoder' would see sequence = ",
        ),
        (
            "transformer",
            {"latent_tokens": "1..300"},
            "the answer with its pictures: the part 'transformer' would see latent_tokens = 560",
        ),
    ],
)
def test_what_the_graphs_do_not_take_is_refused_first(
    part: str, dims: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, sizes in dims.items():
        monkeypatch.setitem(qwen_edit.DIMS, name, sizes)
    graphs = qwen_edit.graphs()
    with task_of(graphs, TaskOptions()) as task:
        with pytest.raises(InputError) as caught:
            task.edit([qwen_edit.photographs()["f"]], "x")
        assert caught.value.what.startswith(message)
        assert all(session.n_runs == 0 for session in graphs.sessions.values())
    assert part in graphs.sessions
