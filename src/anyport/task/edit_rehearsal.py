"""The task ``edit`` as its proof runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from anyport.task import edit
from anyport.task.edit_plan import Editing
from anyport.task.rehearsals import TaskAnswer
from anyport.task.task import TaskOptions, settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.task.graphs import Graphs
    from anyport.task.rehearsals import TaskRequest

_Side = Annotated[int, msgspec.Meta(ge=16, le=1024)]
_Area = Annotated[int, msgspec.Meta(ge=32 * 32, le=1024 * 1024)]


class EditWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the words of a case may be: bounded, for a proof comes from strangers.

    Attributes:
        instruction: All of it counts, however long it is.
        guidance: The scale; 1 and below: none.
        steps: How many.
        width: Of the answer.
        height: Of the answer.
        negative: Needed above a guidance of 1.
        condition_area: What the vision encoder sees; as the bundle says if absent.
        vae_area: What the transformer sees; as the bundle says if absent.
    """

    instruction: str
    guidance: Annotated[float, msgspec.Meta(ge=0, le=100)]
    steps: Annotated[int, msgspec.Meta(ge=2, le=64)]
    width: _Side
    height: _Side
    negative: str | None = None
    condition_area: _Area | None = None
    vae_area: _Area | None = None


def words_of(request: TaskRequest) -> EditWords:
    """Read the words of a request.

    Raises:
        UsageError: One is unknown, missing or too large.
    """
    return settings_from(request.words, EditWords, f"case '{request.name}'")


def rehearse(graphs: Graphs, request: TaskRequest) -> TaskAnswer:
    """Change the pictures of a request as it says; see `anyport.task.rehearsals.rehearse`."""
    words = words_of(request)
    how = Editing(
        negative=words.negative,
        guidance=words.guidance,
        steps=words.steps,
        latents=request.arrays.get("latents"),
        size=(words.width, words.height),
        step_cache=0.0,
        vae_tile=0,  # tiles give another picture, in diffusers too
        max_length=0,
    )
    with edit.open_task(graphs, _settings_for(words, graphs.settings), TaskOptions()) as editor:
        return TaskAnswer(editor.edit(list(request.pictures), words.instruction, how).pixels)


def _settings_for(words: EditWords, settings: Mapping[str, Any]) -> dict[str, Any]:
    areas = {"condition_area": words.condition_area, "vae_area": words.vae_area}
    given = {name: area for name, area in areas.items() if area is not None}
    return {**settings, "picture": {**settings.get("picture", {}), **given}}
