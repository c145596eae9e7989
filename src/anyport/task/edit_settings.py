"""The settings of the task ``edit``: what surrounds the five graphs of a picture editor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from anyport.errors import InputError, UsageError
from anyport.task.edit_tiles import check_tile
from anyport.task.part_forms import Form, check_forms
from anyport.task.task import settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.tensors import Signature

PARTS: Final = ("vision_encoder", "text_encoder", "transformer", "vae_encoder", "vae_decoder")
FORMS: Final[Mapping[str, Form]] = {
    "text_encoder": Form(
        {"input_ids": 2, "attention_mask": 2, "position_ids": 3, "image_embeds": 2}, {"last_hidden_state": 3}
    ),
    "transformer": Form(
        {
            "hidden_states": 3,
            "encoder_hidden_states": 3,
            "timestep": 1,
            "img_cos": 2,
            "img_sin": 2,
            "txt_cos": 2,
            "txt_sin": 2,
        },
        {"velocity": 3},
    ),
    "vae_decoder": Form({"latent": 4}, {"image": 4}),
    "vae_encoder": Form({"image": 4}, {"latent": 4}),
    "vision_encoder": Form(
        {
            "pixel_values": 2,
            "patch_positions": 2,
            "picture_ids": 1,
            "window_patches": 2,
            "window_mask": 2,
            "patch_slots": 1,
        },
        {"image_embeds": 2},
    ),
}
_MORE: Final[Mapping[str, Mapping[str, int]]] = {"transformer": {"is_output": 1}}  # fed where it is taken
_N_CHANNELS: Final = 3
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Id = Annotated[int, msgspec.Meta(ge=0)]


class InstructionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an instruction becomes the tokens that the text encoder reads.

    Attributes:
        tokenizer: Path in the bundle of a ``tokenizer.json`` (Hugging Face tokenizers).
        before: What the model's template says before the pictures and the instruction.
        after: What it says behind them.
        picture: What stands for each picture; ``{}`` is its number from 1.
        image_pad: The token that stands for one merged patch of a picture.
        n_dropped: How many leading states are not shown to the transformer: those of ``before``.
        max_length: How many tokens of an instruction are used; 0 for all.
        positions: ``multimodal``: a picture's tokens lie at rows and columns, as the model was trained;
            ``plain``: one after the other, which is what diffusers 0.42 with transformers 5 computes.
    """

    tokenizer: str
    before: str
    after: str
    picture: str
    image_pad: _Id
    n_dropped: _Id = 64
    max_length: _Id = 128
    positions: Literal["multimodal", "plain"] = "plain"


class EditPictureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sizes in which pictures are seen and made, all in pixels; areas are height x width.

    Attributes:
        n_max: How many pictures an instruction may speak of.
        condition_area: What the vision encoder sees.
        vae_area: What the transformer sees.
        output_area: What is made where no size is asked for.
        max_output_area: The most that is computed; a larger answer is enlarged.
        side_multiple: Sides of the first three are rounded to it.
        patch: Side of a patch of the vision encoder.
        temporal_patch: How often a picture is repeated in its patches.
        merge: How many patches in a row, and in a column, become one token.
        window: Side of a window of the vision encoder.
        min_pixels: Pictures below are enlarged for the vision encoder.
        max_pixels: Pictures above are reduced for it.
        mean: Per channel, on pixels from 0 to 1.
        std: Per channel.
    """

    n_max: _Positive = 3
    condition_area: _Positive = 384 * 384
    vae_area: _Positive = 1024 * 1024
    output_area: _Positive = 1024 * 1024
    max_output_area: _Positive = 4 * 1024 * 1024
    side_multiple: _Positive = 32
    patch: _Positive = 14
    temporal_patch: _Positive = 2
    merge: _Positive = 2
    window: _Positive = 112
    min_pixels: _Positive = 56 * 56
    max_pixels: _Positive = 28 * 28 * 1280
    mean: list[float]
    std: list[float]


class LatentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a picture lies in latents.

    Attributes:
        channels: Channels of the VAE's latent.
        patch: How many latent pixels in a row, and in a column, become one token.
        vae_scale: Pixels of the picture in a row for one of the latent.
        vae_tile: Side in pixels of the tiles in which larger pictures go through the VAE; 0: no tiles.
    """

    channels: _Positive = 16
    patch: _Positive = 2
    vae_scale: _Positive = 8
    vae_tile: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def pixels_per_token(self) -> int:
        """The side of the square of pixels that a token stands for."""
        return self.patch * self.vae_scale

    @property
    def token_width(self) -> int:
        """How many numbers a token has."""
        return self.channels * self.patch**2


class RopeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rotary embedding of the transformer: numbers for frame, row and column."""

    axes: tuple[_Positive, _Positive, _Positive] = (16, 56, 56)
    theta: float = 10_000.0


class ScheduleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The flow-matching Euler schedule; see `anyport.task.flow_match`.

    Attributes:
        n_train_timesteps: What sigma 1 is called in training.
        dynamic: Shift by the number of latent tokens instead of by ``shift``.
        shift: The shift where it is not dynamic.
        base_shift: The exponent of the shift at ``base_tokens``.
        max_shift: The exponent of the shift at ``max_tokens``.
        base_tokens: See there.
        max_tokens: See there.
        terminal: The last sigma that the transformer sees, to which the schedule is stretched; it is not if
            this is absent, or 0 (TOML knows no absent value).
        time_shift: How the dynamic shift enters.
    """

    n_train_timesteps: _Positive = 1000
    dynamic: bool = True
    shift: float = 1.0
    base_shift: float = 0.5
    max_shift: float = 0.9
    base_tokens: _Positive = 256
    max_tokens: _Positive = 8192
    terminal: float | None = 0.02
    time_shift: Literal["exponential", "linear"] = "exponential"


class SamplingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is used where the user does not say.

    Attributes:
        steps: How often the transformer runs (twice as often with guidance).
        guidance: The scale of true classifier-free guidance; 1 and below: none.
        negative: What the picture is led away from; no guidance if absent.
    """

    steps: _Positive = 40
    guidance: float = 4.0
    negative: str | None = None


class EditorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of them."""

    text: InstructionSettings
    picture: EditPictureSettings
    latents: LatentSettings = LatentSettings()
    rope: RopeSettings = RopeSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    sampling: SamplingSettings = SamplingSettings()


def editor_settings(tree: Mapping[str, Any], parts: Mapping[str, Signature]) -> EditorSettings:
    """Read the settings, and check that they and the parts fit each other.

    Raises:
        UsageError: Naming the setting or the part.
    """
    settings = settings_from(tree, EditorSettings, "settings of the task 'edit'")
    _check_picture(settings.picture, settings.latents)
    _check_numbers(settings)
    _check_tile(settings.latents)
    check_forms("edit", {name: _form(name, parts) for name in PARTS}, parts)
    _check_widths(settings, parts)
    return settings


def _form(name: str, parts: Mapping[str, Signature]) -> Form:
    """Return the form of a part: a transformer with ``zero_cond_t`` (2511) takes one tensor more."""
    form, more = FORMS[name], _MORE.get(name, {})
    given = {spec.name for spec in parts[name].inputs} if name in parts else set()
    return Form({**form.inputs, **{key: n for key, n in more.items() if key in given}}, form.outputs)


def _check_picture(picture: EditPictureSettings, latents: LatentSettings) -> None:
    for name, values in (("mean", picture.mean), ("std", picture.std)):
        if len(values) != _N_CHANNELS or not all(map(math.isfinite, values)):
            raise UsageError(f"settings: picture.{name} = {values} must be three finite numbers")
    if min(picture.std) <= 0:
        raise UsageError(f"settings: picture.std = {picture.std} must be above 0 in every channel")
    if picture.window % (picture.patch * picture.merge):
        raise UsageError(
            f"settings: picture.window = {picture.window} is no multiple of "
            f"patch x merge = {picture.patch * picture.merge}"
        )
    if picture.side_multiple % latents.pixels_per_token:
        raise UsageError(
            f"settings: picture.side_multiple = {picture.side_multiple} is no multiple of "
            f"latents.patch x latents.vae_scale = {latents.pixels_per_token}"
        )


def _check_tile(latents: LatentSettings) -> None:
    try:
        check_tile(latents.vae_tile, latents)
    except InputError as err:
        raise UsageError(f"settings: latents.{err.what}", do=err.do) from err


def _check_numbers(settings: EditorSettings) -> None:
    schedule = settings.schedule
    numbers = (schedule.shift, schedule.base_shift, schedule.max_shift, settings.rope.theta)
    if not all(map(math.isfinite, numbers)) or schedule.shift <= 0 or settings.rope.theta <= 0:
        raise UsageError("settings: schedule and rope must hold finite numbers, shift and theta above 0")
    if schedule.terminal is not None and not 0 <= schedule.terminal < 1:
        raise UsageError(f"settings: schedule.terminal = {schedule.terminal} must be 0 (none) or lie below 1")
    if schedule.max_tokens <= schedule.base_tokens:
        raise UsageError("settings: schedule.max_tokens must be above schedule.base_tokens")
    if any(axis % 2 for axis in settings.rope.axes):
        raise UsageError(f"settings: rope.axes = {list(settings.rope.axes)} must be even numbers")
    if "{}" not in settings.text.picture and settings.picture.n_max > 1:
        raise UsageError("settings: text.picture has no {} for the number of the picture")


def _check_widths(settings: EditorSettings, parts: Mapping[str, Signature]) -> None:
    """Check the fixed axes that settings speak of."""
    picture, latents = settings.picture, settings.latents
    wanted = {
        ("vision_encoder", "pixel_values", 1): 3 * picture.temporal_patch * picture.patch**2,
        ("vision_encoder", "window_patches", 1): (picture.window // picture.patch) ** 2,
        ("transformer", "hidden_states", 2): latents.token_width,
        ("transformer", "img_cos", 1): sum(settings.rope.axes) // 2,
        ("vae_encoder", "image", 1): _N_CHANNELS,
        ("vae_decoder", "latent", 1): latents.channels,
    }
    for (part, name, place), size in wanted.items():
        spec = next(spec for spec in parts[part].inputs if spec.name == name)
        axis = spec.axes[place]
        if not axis.is_fixed or axis.size({}) != size:
            raise UsageError(
                f"settings of the task 'edit' make {size} numbers in axis {place} of '{name}', "
                f"the part '{part}' takes {spec}"
            )
