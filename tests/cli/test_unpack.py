"""`anyport unpack`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unpack_gives_back_what_pack_took(shell: Shell, tmp_path: Path) -> None:
    bundle, file, folder = networks.corners_bundle(tmp_path), tmp_path / "a.zip", tmp_path / "b.port"
    shell("pack", bundle, "-o", file)
    found = shell("unpack", file, "-o", folder)
    assert (found.code, found.out, found.err) == (0, f"  unpacked  {folder}\n", "")
    assert contents(folder) == contents(bundle)
    assert shell("unpack", file, "-o", folder, "--json").code == 2
    assert shell("unpack", file, "-o", folder, "--json", "--force").record == {"folder": str(folder)}
