"""The files that a task reads, such as a tokenizer, as a bundle carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER: Final = "assets"


def write_assets(folder: Path, assets: Mapping[str, bytes]) -> None:
    """Write the assets of a model into a bundle that is being made; sealing lists and digests them.

    Args:
        folder: Of the bundle.
        assets: Path in the bundle, below ``assets/`` -> content.

    Raises:
        UsageError: A path lies elsewhere.
    """
    for name, content in assets.items():
        first, _, rest = name.partition("/")
        if first != FOLDER or not rest or ".." in name.split("/"):
            raise UsageError(f"the asset '{name}' is not below {FOLDER}/", do=f"call it {FOLDER}/{name}")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
