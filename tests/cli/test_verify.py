from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.build.building import ZOO
from tests.cli.lossy_corners import lossy_corners
from tests.cli.test_build import MODEL
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def test_a_file_is_held_against_its_source(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert shell("export", *MODEL, "-o", path, "--max-cases", 8).code == 0
    found = shell("verify", path, "--against", MODEL[0], "--max-cases", 8)
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines()[0].endswith("PASS")
    strict = shell("verify", path, "--against", MODEL[0], "--max-cases", 8, "--atol", 0, "--json")
    assert strict.code == 1
    assert strict.record["verdicts"][0]["status"] == "FAIL"
    record = shell("verify", path, "--against", path, "--max-cases", 8, "--json").record
    assert record["verdicts"][0]["status"] == "PASS"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("m.onnx",), "UsageError: 'm.onnx' needs --against"),
        (("m.port", "--against", "model.py:load"), "UsageError: 'm.port' carries its own proof"),
        (("absent.port",), "BundleError: "),
        (("absent.onnx", "--against", f"{ZOO}/zoo.py:dense"), "SessionError: "),
    ],
)
def test_wrong_use_is_refused(shell: Shell, words: tuple[str, ...], text: str) -> None:
    found = shell("verify", *words)
    assert found.code in {1, 2}
    assert found.err.startswith(text)


def test_a_bundle_replays_its_own_proof(shell: Shell, tmp_path: Path) -> None:
    bundle = networks.corners_bundle(tmp_path)
    found = shell("verify", bundle, "--json")
    assert (found.code, found.err) == (0, "")
    [verdict] = found.record["verdicts"]
    assert (verdict["status"], {leg["name"]: leg["status"] for leg in verdict["legs"]}["values"]) == (
        "PASS",
        "PASS",
    )


def test_a_damaged_bundle_is_refused_before_anything_runs(shell: Shell, tmp_path: Path) -> None:
    bundle = networks.corners_bundle(tmp_path)
    graph = next(bundle.rglob("model.onnx"))
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    found = shell("verify", bundle)
    assert found.code == 1
    assert found.err.startswith("BundleError: ")
    assert "model.onnx" in found.err


def test_what_is_for_bundles_is_refused_for_files(shell: Shell) -> None:
    found = shell("verify", "m.onnx", "--against", "model.py:load", "--variant", "int8")
    assert found.code == 2
    assert found.err.startswith("UsageError: 'm.onnx' is no bundle: --variant and --part do not apply")


def test_a_lossy_variant_is_measured_here(shell: Shell, tmp_path: Path) -> None:
    bundle = lossy_corners(tmp_path)
    found = shell("verify", bundle, "--variant", "int8")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0].startswith("  network   4 cases, batch 1, 3   'logits' top-1 agreement ")
    assert lines[0].endswith("PASS")
    assert lines[1].startswith("values    PASS            'logits' top-1 agreement ")
    assert lines[1].endswith(" over 128 samples, 95 % needed")
    assert shell("verify", bundle).code == 0


def test_a_lossy_variant_that_is_worse_here_fails(shell: Shell, tmp_path: Path) -> None:
    bundle = lossy_corners(tmp_path, (10.0, -10.0, 10.0, 10.0))
    found = shell("verify", bundle, "--variant", "int8")
    assert found.code == 1
    assert found.err.startswith("MismatchError: 'logits' top-1 agreement ")
    assert "  where: part network, variant int8\n" in found.err
    told = shell("verify", bundle, "--variant", "int8", "--json")
    assert told.code == 1
    [verdict] = told.record["verdicts"]
    assert (verdict["status"], verdict["evaluation"]["status"]) == ("FAIL", "FAIL")
    [measure] = verdict["evaluation"]["measures"]
    assert (measure["metric"], measure["allowance"], measure["n_samples"]) == ("top-1", 0.95, 128)
    assert shell("verify", bundle, "--variant", "int8", "--allow", "failed").code == 0
