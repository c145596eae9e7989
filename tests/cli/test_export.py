from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.test_build import MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def test_a_model_is_exported_and_verified_as_a_plain_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    found = shell("export", *MODEL, "-o", path, "--max-cases", 8, "--opset", 18)
    assert (found.code, found.err) == (0, "")
    assert [line.split()[0] for line in found.out.splitlines()] == ["source", "export", "verify", "write"]
    assert "opset 18" in found.out
    assert shell("export", *MODEL, "-o", path).code == 2
    again = shell("export", *MODEL, "-o", path, "--force", "--json", "--max-cases", 8)
    assert again.record["files"] == [str(path)]
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
