"""LoRA adapters: changes of low rank that are merged into a network before it is exported.

A merged weight is ``W + scale * alpha / rank * up @ down``, computed in float32. Read are the files that
diffusers and peft write (``lora_A``, ``lora_B``) and those of other trainers (``lora_down``, ``lora_up``,
``alpha``), such as the published Qwen-Image-Lightning. They are read here, because diffusers reads them with
the help of peft only, which would be one more package, and leaves out some of what it does not know.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from anyport.errors import SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PREFIXES: Final = ("base_model.model.", "transformer.", "diffusion_model.")
_FLAT: Final = "lora_unet_"  # and every dot of a name is an underscore
_KEY: Final = re.compile(
    r"(?P<layer>.+)\.(?:lora[._](?P<role>down|up|A|B)(?:\.default)?\.weight|(?P<alpha>alpha))"
)
_ROLES: Final[Mapping[str | None, str]] = {"A": "down", "B": "up", "down": "down", "up": "up", None: "alpha"}
_PEFT: Final = "lora_adapter_metadata"  # where diffusers keeps the settings of peft
_REFUSED: Final = ("alpha_pattern", "use_dora", "use_rslora")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A file, and how much of it is merged: 1 is what it was trained as."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """What is added to the weight of a layer: ``factor * up @ down``.

    Attributes:
        layer: Its path in the network.
        down: float[rank, inputs]; it stays in its file until it is used.
        up: float[outputs, rank]; the same.
        factor: Of the product.
    """

    layer: str
    down: Tensor
    up: Tensor
    factor: float

    def added_to(self, weight: Tensor) -> Tensor:
        """Return the merged weight in float32; memory: two weights of this layer."""
        return weight.float() + self.factor * (self.up.float() @ self.down.float())


def adapter_from(text: str, folder: Path) -> Adapter:
    """Read ``FILE.safetensors`` or ``FILE.safetensors:SCALE``.

    >>> adapter_from("lightning.safetensors:0.8", Path("adapters")).scale
    0.8

    Args:
        text: What the user wrote.
        folder: What a relative file is relative to.

    Raises:
        UsageError: It is neither, or the scale is no number but 0.
    """
    place, colon, number = text.rpartition(":")
    if not colon or text.endswith(".safetensors"):
        place, number = text, "1"
    try:
        scale = float(number)
    except ValueError:
        scale = 0.0
    if not place.endswith(".safetensors") or not math.isfinite(scale) or not scale:
        raise UsageError(
            f"the LoRA '{Path(text).name}' is no FILE.safetensors or FILE.safetensors:SCALE",
            do="give a .safetensors file: other files can run code; a scale is a number other than 0",
        )
    return Adapter(folder / place, scale)


def check_adapter(adapter: Adapter) -> None:
    """Look whether a file can be an adapter, before a network is loaded for it; its numbers are not read.

    Raises:
        SourceError: It is not there, is no safetensors file, or has no key of a LoRA.
    """
    name = adapter.path.name
    with _opened(adapter.path) as file:
        keys = list(file.keys())
    if not any(_KEY.fullmatch(key) for key in keys):
        raise SourceError(
            f"'{name}' is no LoRA: none of its {len(keys)} tensors is called lora_down, lora_A or so",
            do="give the LoRA's own file, not the weights of a model",
        )


def merge_adapter(network: nn.Module, adapter: Adapter) -> str:
    """Add an adapter to the weights of a network, in place.

    Everything is checked before the first weight is changed.

    Returns:
        What was done, with the file's name, its sha256 and the scale.

    Raises:
        SourceError: The file is none, or a key of it fits no layer; it is named.
    """
    changes, words = read_changes(network, adapter)
    with torch.no_grad():
        for change in changes:
            weight: Any = network.get_submodule(change.layer).weight
            weight.copy_(change.added_to(weight))
    return words


def read_changes(network: nn.Module, adapter: Adapter) -> tuple[tuple[Change, ...], str]:
    """Read what an adapter does to the weights of a network, which is not changed and may be on meta.

    The numbers stay in the file, mapped into memory: it must not change while they are used.

    Returns:
        The changes, and what merging them does: with the file's name, its sha256 and the scale.

    Raises:
        SourceError: The file is none, or a key of it fits no layer; it is named.
    """
    name = adapter.path.name
    tensors, settings = _read(adapter.path)
    changes = _changes(network, tensors, adapter.scale, settings.get("lora_alpha"), name)
    digest = _sha256(adapter.path)
    done = f"(sha256 {digest}, scale {adapter.scale:g}) is merged into {len(changes)} weights"
    return tuple(changes), f"the LoRA '{name}' {done}"


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, and the settings that peft has for it."""
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dict)
        words = json.loads((file.metadata() or {}).get(_PEFT, "{}"))
    found = {key.removeprefix("transformer."): value for key, value in dict(words).items()}
    for word in _REFUSED:
        if found.get(word):
            raise SourceError(f"the LoRA '{path.name}' has {word} = {found[word]}, which is not merged here")
    return tensors, found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise SourceError(f"there is no LoRA '{path.name}'", where=path.parent.name or None)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, ValueError) as err:
        raise SourceError(f"the LoRA '{path.name}' is no safetensors file: {err}") from err


def _changes(
    network: nn.Module, tensors: Mapping[str, Tensor], scale: float, default_alpha: float | None, name: str
) -> list[Change]:
    layers = {key: one for key, one in network.named_modules() if isinstance(one, nn.Linear)}
    flat = {_FLAT + key.replace(".", "_"): key for key in layers}
    found: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in tensors.items():
        matched = _KEY.fullmatch(key)
        layer = None if matched is None else flat.get(matched["layer"], _bare(matched["layer"]))
        if matched is None or layer not in layers:
            strange.append(key)
        else:
            _put(found.setdefault(str(layer), {}), _ROLES[matched["role"]], tensor, (name, key))
    if strange:
        raise SourceError(
            f"the LoRA '{name}' has {_named(strange)}, which fits no linear layer of this model",
            do="give a LoRA of this very model, without DoRA and without biases",
        )
    if not found:
        raise SourceError(f"the LoRA '{name}' is empty")
    return [
        _change(layers[key], weights, (scale, default_alpha), (name, key)) for key, weights in found.items()
    ]


def _bare(layer: str) -> str:
    for prefix in _PREFIXES:
        layer = layer.removeprefix(prefix)
    return layer


def _put(weights: dict[str, Tensor], role: str, tensor: Tensor, where: tuple[str, str]) -> None:
    name, key = where
    if role in weights:
        raise SourceError(f"the LoRA '{name}' speaks twice of what '{key}' says")
    if not tensor.is_floating_point() or not torch.isfinite(tensor.float()).all():
        raise SourceError(f"the LoRA '{name}' holds numbers in '{key}' that are not finite floats")
    weights[role] = tensor


def _change(
    layer: nn.Linear,
    weights: Mapping[str, Tensor],
    scales: tuple[float, float | None],
    where: tuple[str, str],
) -> Change:
    name, key = where
    missing = [role for role in ("down", "up") if role not in weights]
    if missing:
        raise SourceError(
            f"the LoRA '{name}' has no lora_{missing[0]} ({'A' if missing[0] == 'down' else 'B'}) for '{key}'"
        )
    down, up = weights["down"], weights["up"]
    n_out, n_in = layer.weight.shape
    fits = down.ndim == up.ndim == 2 and down.shape == (up.shape[1], n_in) and up.shape[0] == n_out  # noqa: PLR2004  (matrices)
    if not fits or not len(down):
        raise SourceError(
            f"the LoRA '{name}' has up {list(up.shape)} @ down {list(down.shape)} for '{key}', "
            f"whose weight is {[n_out, n_in]}"
        )
    scale, default_alpha = scales
    rank = len(down)
    alpha = weights.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise SourceError(f"the LoRA '{name}' has {alpha.numel()} numbers as alpha of '{key}'")
    strength = float(alpha) if alpha is not None else float(rank if default_alpha is None else default_alpha)
    return Change(key, down, up, scale * strength / rank)


def _named(keys: Iterable[str]) -> str:
    first, *others = sorted(keys)
    return f"'{first}'" + (f" and {len(others)} more" if others else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
