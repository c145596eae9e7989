"""Assets: written where the manifest will list them, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.build.assets import write_assets
from anyport.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_assets_lie_in_their_folder(tmp_path: Path) -> None:
    write_assets(tmp_path, {"assets/tokenizer.json": b"{}", "assets/words/en.txt": b"a"})
    assert (tmp_path / "assets" / "tokenizer.json").read_bytes() == b"{}"
    assert (tmp_path / "assets" / "words" / "en.txt").read_bytes() == b"a"


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "assets", "assets/", "/assets/a", "assets/../a", "proof/a"]
)
def test_other_places_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_assets(tmp_path, {name: b""})
    assert caught.value.what == f"the asset '{name}' is not below assets/"
    assert not any(tmp_path.iterdir())
