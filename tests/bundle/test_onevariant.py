"""One variant of a bundle, without the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.bundle import open_bundle, pack, unpack
from anyport.bundle.onevariant import kept_files
from anyport.errors import BundleError, UsageError
from anyport.verify import Status, verify_bundle
from tests.bundle.examples import PLACE, files_of, make_bundle
from tests.verify.lossy_bundles import lossy_bundle, opener
from tests.verify.lossy_examples import noisy

if TYPE_CHECKING:
    from pathlib import Path


def test_the_only_variant_is_the_bundle_itself(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    whole, one = pack(folder, tmp_path / "a.zip"), pack(folder, tmp_path / "b.zip", variant="fp32")
    assert one.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "m.port"]


@pytest.mark.parametrize(
    ("variant", "proof"), [("fp32", {"arrays", "cases"}), ("int8", {"arrays", "cases", "int8"})]
)
def test_a_variant_keeps_its_graphs_and_its_proof(variant: str, proof: set[str], tmp_path: Path) -> None:
    bundle = lossy_bundle(tmp_path)
    packed = pack(bundle, tmp_path / "one.zip", variant=variant)
    with open_bundle(packed) as found, open_bundle(bundle) as before:
        assert list(found.manifest.variants) == [found.manifest.default_variant] == [variant]
        assert found.manifest.variants[variant] == before.manifest.variants[variant]
        assert {path.split("/")[2] for path in files_of(found.folder) if path.startswith("parts/")} == {
            variant
        }
        assert {
            path.split("/")[1].partition(".")[0]
            for path in files_of(found.folder)
            if path.startswith("proof/")
        } == proof
        kept = {
            path: text
            for path, text in files_of(before.folder).items()
            if path in kept_files(before.manifest, variant)
        }
        assert {path: files_of(found.folder)[path] for path in kept} == kept
        found.check()
    again = unpack(packed, tmp_path / "again.port")
    assert pack(again, tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_an_unknown_variant_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    with pytest.raises(UsageError, match=r"^the bundle has no variant 'fp23' \(did you mean 'fp32'\?\)"):
        pack(folder, tmp_path / "a.zip", variant="fp23")
    assert [path.name for path in tmp_path.iterdir()] == ["m.port"]


def test_a_damaged_file_is_not_taken_over(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    path = folder / PLACE / "model.onnx"
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(BundleError, match=f"^'{PLACE}/model.onnx' is not the file that was sealed"):
        pack(folder, tmp_path / "a.zip", variant="fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["m.port"]


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_what_is_packed_proves_itself_as_before(variant: str, tmp_path: Path) -> None:
    bundle = lossy_bundle(tmp_path)
    packed = pack(bundle, tmp_path / "one.zip", variant=variant)
    with open_bundle(bundle) as before, open_bundle(packed) as found:
        wanted = list(verify_bundle(before, opener(noisy(0.02, 0.02)), variant))
        verdicts = list(verify_bundle(found, opener(noisy(0.02, 0.02))))
    assert [verdict.to_json() for verdict in verdicts] == [verdict.to_json() for verdict in wanted]
    assert verdicts[0].status in {Status.PASS, Status.INCONCLUSIVE}
