"""`anyport pack`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def test_a_packed_bundle_is_a_bundle(shell: Shell, tmp_path: Path) -> None:
    bundle, target = networks.corners_bundle(tmp_path), tmp_path / "packed.port"
    found = shell("pack", bundle, "-o", target)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith(f"  packed    {target}   ")
    assert shell("inspect", target, "--json").record["model"]["name"] == "small"


def test_an_existing_file_needs_force(shell: Shell, tmp_path: Path) -> None:
    bundle, target = networks.corners_bundle(tmp_path), tmp_path / "packed.port"
    target.write_bytes(b"mine")
    assert shell("pack", bundle, "-o", target).code == 2
    assert target.read_bytes() == b"mine"
    found = shell("pack", bundle, "-o", target, "--force", "--json")
    assert found.record == {"file": str(target), "size_bytes": target.stat().st_size}


def test_what_is_no_bundle_is_refused(shell: Shell, tmp_path: Path) -> None:
    assert shell("pack", tmp_path / "nope", "-o", tmp_path / "x").code == 1
    assert shell("pack", tmp_path / "nope").err.startswith("UsageError: Missing option '-o' / '--output'")
