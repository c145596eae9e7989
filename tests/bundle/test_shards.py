"""Files of weights outside of the bundle: recorded, and recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from anyport.bundle import TensorFileWriter, read_header
from anyport.bundle.shards import (
    check_shards,
    record_shards,
    sampled_digest,
    shards_from_text,
    shards_text,
    weights_root,
)
from anyport.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 40_000


def write_shard(path: Path, seed: int = 0) -> Path:
    """Write two tensors of several pages each, and a small one."""
    rng = np.random.default_rng(seed)
    forms = [("a.weight", "F32", (SIZE,)), ("b.weight", "F32", (SIZE,)), ("b.bias", "F32", (3,))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with TensorFileWriter(path, forms) as writer:
        for name, _, shape in forms:
            writer.write(name, rng.standard_normal(shape, dtype=np.float32))
    return path


def change(path: Path, place: int) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_shards_are_recognised_and_survive_as_text(tmp_path: Path) -> None:
    files = [
        write_shard(tmp_path / name, seed)
        for seed, name in enumerate(("one.safetensors", "in/two.safetensors"))
    ]
    shards = record_shards(tmp_path, files)
    assert [shard.file for shard in shards] == ["in/two.safetensors", "one.safetensors"]
    assert shards_from_text(shards_text(shards)) == shards
    headers = check_shards(tmp_path, shards, whole=True)
    assert headers == {shard.file: read_header(tmp_path / shard.file) for shard in shards}


def test_a_change_is_caught_in_the_header_and_in_the_sampled_pages(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "one.safetensors")
    [shard] = record_shards(tmp_path, [path])
    path.write_bytes(path.read_bytes().replace(b"a.weight", b"A.weight"))
    with pytest.raises(BundleError) as raised:
        check_shards(tmp_path, [shard])
    what = (
        "'one.safetensors' was changed since the graph was made: its header or a page of its tensors is not"
    )
    assert raised.value.what == f"{what} what was recorded"
    write_shard(tmp_path / "other.safetensors", seed=1).replace(path)
    with pytest.raises(BundleError, match="its header or a page of its tensors"):
        check_shards(tmp_path, [shard])


def test_each_tensor_has_a_sampled_page_and_only_the_digest_of_all_sees_the_rest(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "one.safetensors")
    [shard] = record_shards(tmp_path, [path])
    original = path.read_bytes()
    seen: dict[str, int] = {}
    for name, entry in read_header(path).items():
        for place in range(entry.offset, entry.offset + entry.size_bytes, 1024):
            change(path, place)
            seen[name] = seen.get(name, 0) + (sampled_digest(path) != shard.sampled)
            path.write_bytes(original)
    assert all(3 <= n <= 4 for name, n in seen.items() if "weight" in name)
    assert seen["b.bias"] == 1
    unseen = next(p for p in range(200, len(original), 1024) if _is_unseen(path, original, p, shard.sampled))
    change(path, unseen)
    check_shards(tmp_path, [shard])
    with pytest.raises(BundleError, match="its digest is not what was recorded"):
        check_shards(tmp_path, [shard], whole=True)


def _is_unseen(path: Path, original: bytes, place: int, sampled: str) -> bool:
    change(path, place)
    try:
        return sampled_digest(path) == sampled
    except BundleError:
        return False
    finally:
        path.write_bytes(original)


def test_another_size_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "one.safetensors")
    [shard] = record_shards(tmp_path, [path])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BundleError) as raised:
        check_shards(tmp_path, [shard])
    found = (
        f"'one.safetensors' has {shard.size_bytes - 4} bytes, {shard.size_bytes} are recorded: it was changed"
    )
    assert raised.value.what == found
    path.rename(tmp_path / "one1.safetensors")
    with pytest.raises(BundleError) as raised:
        check_shards(tmp_path, [shard])
    expected = "the weights lack the file 'one.safetensors' (did you mean 'one1.safetensors'?)"
    assert raised.value.what == expected


@pytest.mark.parametrize("file", ["../one.safetensors", "/etc/passwd", "a//b", ""])
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, file: str) -> None:
    [shard] = record_shards(tmp_path, [write_shard(tmp_path / "one.safetensors")])
    with pytest.raises(BundleError):
        check_shards(tmp_path, [msgspec.structs.replace(shard, file=file)])


@pytest.mark.parametrize("text", ["", "{}", '[{"file": 1}]', "[" * 100_000])
def test_words_of_another_maker_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        shards_from_text(text)


def test_the_root_follows_the_links_of_a_cache(tmp_path: Path) -> None:
    [shard] = record_shards(tmp_path / "blobs", [write_shard(tmp_path / "blobs" / "abc")])
    snapshot = tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert weights_root(snapshot, [shard]) == (tmp_path / "blobs").resolve()
    pipeline = tmp_path / "snapshots" / "2" / "transformer"
    pipeline.mkdir(parents=True)
    (pipeline / "model.safetensors").symlink_to("../../../blobs/abc")
    assert weights_root(pipeline.parent, [shard]) == (tmp_path / "blobs").resolve()
    assert weights_root(tmp_path / "blobs", [shard]) == (tmp_path / "blobs").resolve()
    assert weights_root(tmp_path / "nowhere", [shard]) == (tmp_path / "nowhere").resolve()


def test_a_link_that_leads_elsewhere_is_named(tmp_path: Path) -> None:
    [shard] = record_shards(tmp_path / "files", [write_shard(tmp_path / "files" / "m.safetensors")])
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "m.safetensors").symlink_to(tmp_path / "files" / "m.safetensors")
    with pytest.raises(BundleError) as caught:
        check_shards(weights_root(tmp_path / "links", [shard]), [shard])
    assert caught.value.what == "'m.safetensors' is a link that leads elsewhere, and a session follows none"
    assert "hf download NAME --local-dir DIR" in str(caught.value.do)
