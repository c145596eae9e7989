"""The task ``edit``: one to three pictures and an instruction in, an edited picture out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec
import numpy as np
from PIL import Image

from anyport.errors import CancelledError, InputError, UsageError
from anyport.task.edit_latents import token_grid
from anyport.task.edit_networks import EditNetworks
from anyport.task.edit_plan import Editing, plan_edit
from anyport.task.edit_prompt import InstructionReader
from anyport.task.edit_region import box_from, free_tokens, pasted
from anyport.task.edit_settings import PARTS, editor_settings
from anyport.task.edit_step_cache import StepCache
from anyport.task.flow_match import euler_step, noised, sigmas
from anyport.task.guidance import guided
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_files import check_fits, picture_target, write_picture
from anyport.task.task import Printout, TaskOptions, settings_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.task.edit_networks import Tables
    from anyport.task.edit_plan import EditPlan
    from anyport.task.edit_settings import EditorSettings
    from anyport.task.edit_sizes import Size
    from anyport.task.graphs import Graphs
    from anyport.task.pictures import Picture
    from anyport.tensors import Signature

_DO: Final = "anyport run BUNDLE PICTURE… --instruction WORDS -o out.png"
_FEWER: Final = "give fewer pictures"
_RELIEF: Final = {  # where a part needs too much memory
    "text_encoder": _FEWER,
    "transformer": "make a smaller picture (--size), or give fewer pictures",
    "vae_decoder": "make a smaller picture (--size), or make it in tiles (--vae-tile 256)",
    "vae_encoder": "read pictures in tiles (--vae-tile 256)",
    "vision_encoder": _FEWER,
}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    instruction: Annotated[str, msgspec.Meta(description="What to change, in words.")] | None = None
    output: (
        Annotated[str, msgspec.Meta(description="Write the picture to this .png, .jpg or .webp.")] | None
    ) = None
    negative: (
        Annotated[str, msgspec.Meta(description="Lead away from these words; needs --guidance above 1.")]
        | None
    ) = None
    guidance: (
        Annotated[float, msgspec.Meta(description="Guidance scale to 100; up to 1: none, twice as fast.")]
        | None
    ) = None
    steps: Annotated[int, msgspec.Meta(ge=1, le=1000, description="Denoising steps.")] | None = None
    seed: (
        Annotated[int, msgspec.Meta(ge=0, description="Seed of the noise (numpy's, not PyTorch's); 0.")]
        | None
    ) = None
    latents: (
        Annotated[str, msgspec.Meta(description="The noise itself: a .npy as diffusers takes `latents`.")]
        | None
    ) = None
    size: Annotated[str, msgspec.Meta(description="WIDTHxHEIGHT of the picture made.")] | None = None
    mask: (
        Annotated[str, msgspec.Meta(description="Picture: only where it is white may the first one change.")]
        | None
    ) = None
    box: (
        Annotated[str, msgspec.Meta(description="LEFT,TOP,RIGHT,BOTTOM: the same as a box in pixels.")] | None
    ) = None
    max_length: (
        Annotated[int, msgspec.Meta(ge=0, description="Tokens of the instruction that count; 0: all.")] | None
    ) = None
    step_cache: (
        Annotated[
            float,
            msgspec.Meta(description="Reuse steps that change less than this, such as 0.1; off."),
        ]
        | None
    ) = None
    vae_tile: (
        Annotated[
            int, msgspec.Meta(ge=0, description="Pass larger pictures through the VAE in tiles of this side.")
        ]
        | None
    ) = None
    force: Annotated[bool, msgspec.Meta(description="Replace an existing output file.")] = False

    def how(self) -> Editing:
        """Return what is asked for.

        Raises:
            InputError: The latents cannot be read.
            UsageError: The size or the box is not understood.
        """
        return Editing(
            negative=self.negative,
            guidance=self.guidance,
            steps=self.steps,
            seed=self.seed,
            latents=None if self.latents is None else _latents_of(Path(self.latents)),
            size=None if self.size is None else _size_from(self.size),
            mask=self.mask,
            box=None if self.box is None else box_from(self.box),
            max_length=self.max_length,
            step_cache=self.step_cache,
            vae_tile=self.vae_tile,
        )


@dataclass(frozen=True, slots=True, eq=False)
class EditedPicture:
    """An answer.

    Attributes:
        image: Of mode ``RGB`` and the size that was asked for.
        profile: The ICC profile of the first picture, which the answer's numbers have.
        pixels: float32[height, width, 3] from 0 to 1: what the model made, before it was rounded, resized and
            laid into the region.
        notes: What the user should know, such as words that were cut off.
        n_computed: How many steps were computed: all, unless a step cache was asked for.
    """

    image: Image.Image
    profile: bytes | None
    pixels: np.ndarray
    notes: tuple[str, ...]
    n_computed: int


class ImageEditor:
    """A bundle that changes pictures as it is told; a context manager.

    Attributes:
        settings: The sizes, the template and the schedule.
        networks: The graphs, and what they remember.
    """

    def __init__(self, graphs: Graphs, settings: EditorSettings, options: TaskOptions) -> None:
        self.settings = settings
        self._tell = options.progress
        self._reader = InstructionReader(graphs, settings.text)
        self._parts = OpenParts(graphs, PARTS, options, relief=_RELIEF)
        self.networks = EditNetworks(self._parts, settings, self._reader)

    def __enter__(self) -> Self:
        """Return the task itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back the sessions and the bundle; a second call does nothing."""
        self._parts.close()

    def edit(
        self,
        pictures: Sequence[Picture],
        instruction: str,
        how: Editing | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> EditedPicture:
        """Change a picture.

        Everything is read and checked before anything is computed. The same pictures, words and latents give
        the picture of diffusers' QwenImageEditPlusPipeline.

        Args:
            pictures: One to three paths, bytes, Pillow images or numpy arrays.
            instruction: What to change; it may speak of "picture 1".
            how: Everything else; as the bundle says if absent.
            progress: Told the number of steps that are done, and of all.
            cancel: Asked before each step and before the end; true stops.

        Raises:
            CancelledError: ``cancel`` said so.
            InputError: Naming the picture, words or number that does not fit.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        return self.carry_out(self.plan(pictures, instruction, how), progress=progress, cancel=cancel)

    def carry_out(
        self,
        plan: EditPlan,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> EditedPicture:
        """Do what `plan` found.

        Args:
            plan: Of this editor.
            progress: As for `edit`.
            cancel: As for `edit`.

        Raises:
            CancelledError: ``cancel`` said so.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        cache = StepCache(plan.step_cache, plan.n_steps)
        latents = self._denoise(plan, cache, progress or (lambda _, __: None), cancel or (lambda: False))
        pixels = self.networks.pixels(latents, plan)
        image = Image.fromarray((pixels * 255).round().astype(np.uint8))
        if image.size != plan.output.given:
            image = image.resize(plan.output.given, Image.Resampling.LANCZOS)
        if plan.region is not None:
            image = pasted(image, plan.pictures[0].image, plan.region)
        notes = list(plan.notes)
        if plan.step_cache:
            notes.append(f"step cache: {cache.n_computed} of {plan.n_steps} steps were computed")
        return EditedPicture(image, plan.pictures[0].profile, pixels, tuple(notes), cache.n_computed)

    def plan(self, pictures: Sequence[Picture], instruction: str, how: Editing | None = None) -> EditPlan:
        """Read and check what `edit` would be given.

        Raises:
            InputError: Naming what does not fit.
        """
        plan = plan_edit(pictures, instruction, how or Editing(), self.settings, self._reader)
        self.networks.check_room(plan)
        return plan

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Change the files that a command line names; see `anyport.task.task.Task`."""
        chosen = settings_from(options, Options, "options of the task 'edit'")
        if not words:
            raise UsageError("no picture is given", do=_DO)
        if chosen.instruction is None:
            raise UsageError("no instruction is given", do=_DO)
        if chosen.output is None:
            raise UsageError("no output file is given", do=_DO)
        how = chosen.how()
        exact = how.mask is not None or how.box is not None
        target = picture_target(chosen.output, exact=exact, force=chosen.force)
        plan = self.plan(list(words), chosen.instruction, how)
        check_fits(target, plan.output.given)
        found = self.carry_out(plan, progress=self._told)
        write_picture(target, found.image, found.profile, exact=exact, force=chosen.force)
        width, height = found.image.size
        lines = [f"  {target}   {width} x {height}", *(f"  note: {note}" for note in found.notes)]
        size = {"width": width, "height": height, "n_computed": found.n_computed}
        return Printout(
            tuple(lines), {"task": "edit", "file": str(target), **size, "notes": list(found.notes)}
        )

    def _told(self, n_done: int, n_steps: int) -> None:
        self._tell("steps", n_done, n_steps)

    def _denoise(
        self,
        plan: EditPlan,
        cache: StepCache,
        progress: Callable[[int, int], None],
        cancel: Callable[[], bool],
    ) -> np.ndarray:
        """Return float32[1, tokens, width]: the answer's latents without noise."""
        networks, schedule = self.networks, self.settings.schedule
        _stop_if(cancel, 0, plan.n_steps)
        references = networks.reference_latents(plan)
        states = networks.prompt_states(plan)
        prompts = [(one, networks.tables(plan, one.shape[1])) for one in states]
        keep = self._kept(plan, references)
        latents = plan.noise
        levels = sigmas(plan.n_steps, latents.shape[1], schedule)
        for step, (now, after) in enumerate(pairwise(levels)):
            _stop_if(cancel, step, plan.n_steps)
            hidden = np.concatenate([latents, references], axis=1)
            compute = partial(self._velocity, hidden, now, prompts, plan)
            velocity = cache.velocity(latents, compute)
            latents = keep(euler_step(latents, velocity, now, after), after)
            progress(step + 1, plan.n_steps)
        _stop_if(cancel, plan.n_steps, plan.n_steps)
        return latents

    def _velocity(
        self,
        hidden: np.ndarray,
        now: np.float32,
        prompts: Sequence[tuple[np.ndarray, Tables]],
        plan: EditPlan,
    ) -> np.ndarray:
        """Return float32[1, tokens, width]: where the answer's latents go, with guidance if there is any."""
        n = plan.noise.shape[1]
        found = [self.networks.velocity(hidden, now, *prompt)[:, :n] for prompt in prompts]
        return found[0] if len(found) == 1 else guided(found[0], found[1], plan.guidance)

    def _kept(self, plan: EditPlan, references: np.ndarray) -> Callable[[np.ndarray, np.float32], np.ndarray]:
        """Return what lays the first picture's latents, as noisy as the answer's, around the region."""
        if plan.region is None:
            return lambda latents, _: latents
        first, size = plan.pictures[0], plan.output.computed
        if first.sizes.vae == size:  # it was encoded so already
            clean = references[:, : plan.noise.shape[1]]
        else:
            clean = self.networks.picture_latents(first, size, plan.vae_tile)
        free = free_tokens(plan.region, token_grid(size, self.settings.latents))
        return lambda latents, sigma: np.where(free, latents, noised(clean, plan.noise, sigma))


def _stop_if(cancel: Callable[[], bool], n_done: int, n_steps: int) -> None:
    if cancel():
        raise CancelledError(f"the edit was cancelled after {n_done} of {n_steps} steps")


def _size_from(text: str) -> Size:
    width, x, height = text.lower().partition("x")
    if not x or not width.strip().isdecimal() or not height.strip().isdecimal():
        raise UsageError(
            f"the size '{text}' is not understood", do="write --size WIDTHxHEIGHT, such as 1024x768"
        )
    return int(width), int(height)


def _latents_of(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (EOFError, OSError, ValueError) as err:
        raise InputError(f"{path} cannot be read as an array: {err}", do="write it with numpy.save") from err


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> ImageEditor:
    """Open the parts of an editor."""
    return ImageEditor(graphs, editor_settings(settings, known_parts(graphs.parts)), options)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the parts.
    """
    editor_settings(settings, parts)
