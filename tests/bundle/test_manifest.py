from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from anyport.bundle import FORMAT, FileEntry, decode_manifest, encode_manifest, is_version
from anyport.bundle.manifest import decode_sealed, seal_text
from anyport.errors import BundleError
from tests.bundle.examples import PLACE, make_manifest

if TYPE_CHECKING:
    from anyport.bundle import Manifest

SHARD = {"file": "model.safetensors", "size_bytes": 4, "sampled": "0" * 64, "sha256": "0" * 64}
PATHS = (
    "MODEL_CARD.md",
    *(f"{PLACE}/{name}" for name in ("model.onnx", "modules.json", "weights.safetensors")),
)

GOLDEN = """{
 "format": 1,
 "model": {
  "name": "tiny",
  "version": "1.0.0",
  "description": "",
  "author": "",
  "license": "Apache-2.0",
  "created": "2026-11-20T10:00:00Z",
  "trained_at": ""
 },
 "task": "classify",
 "settings": {
  "labels": [
   "zero",
   "één"
  ],
  "mean": [
   0.5
  ],
  "crop": null
 },
 "parts": {
  "network": {
   "inputs": {
    "x": "float32[batch, 2]"
   },
   "outputs": {
    "y": "float32[batch, 10]"
   },
   "dims": {
    "batch": "1..64"
   }
  }
 },
 "variants": {
  "fp32": {
   "graphs": {
    "network": {
     "file": "parts/network/fp32/model.onnx",
     "weights": "parts/network/fp32/weights.safetensors",
     "modules": "parts/network/fp32/modules.json",
     "opset": 20,
     "n_nodes": 2,
     "operators": {
      "Add": 1,
      "Gemm": 1
     },
     "n_parameters": 20,
     "optimization": "all",
     "runtime": null,
     "stored": {
      "float32": 80
     }
    }
   },
   "steps": [
    {
     "verb": "export",
     "settings": {
      "opset": 20
     },
     "result": "2 nodes"
    }
   ],
   "proven": true,
   "note": "",
   "metric": null
  }
 },
 "default_variant": "fp32",
 "provenance": {
  "source": "model.py:load",
  "command": "anyport build .",
  "packages": {
   "onnx": "1.20",
   "torch": "2.13.0"
  },
  "machine": "x86_64",
  "python": "3.11.7"
 },
 "files": [
  {
   "path": "parts/network/fp32/model.onnx",
   "size_bytes": 3,
   "sha256": "0000000000000000000000000000000000000000000000000000000000000000"
  }
 ]
}
"""


def sealed(*paths: str) -> Manifest:
    files = [FileEntry(path, 3, "0" * 64) for path in paths or PATHS]
    return msgspec.structs.replace(make_manifest(), files=files)


def changed(path: str, value: object) -> bytes:
    """Return the bytes of a manifest with one value changed; ``path`` is like ``model.name``."""
    tree = json.loads(encode_manifest(sealed()))
    place = tree
    *keys, last = path.split("/")
    for key in keys:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(tree).encode()


def test_golden_bytes() -> None:
    graph = msgspec.structs.replace(
        make_manifest().variants["fp32"].graphs["network"], weights=None, modules=None
    )
    variants = {"fp32": msgspec.structs.replace(make_manifest().variants["fp32"], graphs={"network": graph})}
    manifest = msgspec.structs.replace(sealed(f"{PLACE}/model.onnx"), variants=variants)
    wanted = GOLDEN
    for name in ("weights.safetensors", "modules.json"):
        wanted = wanted.replace(f'"{PLACE}/{name}"', "null")
    assert encode_manifest(manifest).decode() == wanted
    assert wanted.startswith('{\n "format": 1,')


def test_writing_then_reading_gives_the_same() -> None:
    manifest = sealed()
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert encode_manifest(decode_manifest(encode_manifest(manifest))) == encode_manifest(manifest)


def test_the_order_of_inputs_is_kept() -> None:
    names = ["z", "a", "m"]
    part = msgspec.structs.replace(
        make_manifest().parts["network"], inputs=dict.fromkeys(names, "float32[2]")
    )
    manifest = msgspec.structs.replace(sealed(), parts={"network": part})
    assert list(decode_manifest(encode_manifest(manifest)).parts["network"].inputs) == names


def test_a_part_gives_its_tensors() -> None:
    part = make_manifest().parts["network"]
    assert [str(spec) for spec in (*part.input_specs(), *part.output_specs())] == [
        "float32[batch, 2]",
        "float32[batch, 10]",
    ]
    assert str(part.dim_ranges()["batch"]) == "1..64"


NOT_UNDERSTOOD = "manifest.json is not understood: "
REFUSED = [
    ("format", FORMAT + 1, "the bundle has format 2, this anyport reads format 1"),
    ("format", 0, "manifest.json has no format number"),
    ("format", "1", "manifest.json has no format number"),
    ("format", True, "manifest.json has no format number"),
    ("model/name", "", "manifest.json: the model has no name"),
    ("model/version", "1.0", "manifest.json: '1.0' is no semantic version"),
    (
        "model/licence",
        "MIT",
        "manifest.json has an unknown key 'licence' in 'model' (did you mean 'license'?)",
    ),
    ("fiels", [], "manifest.json has an unknown key 'fiels' (did you mean 'files'?)"),
    (
        "variants/fp32/graphs/network/optset",
        1,
        "manifest.json has an unknown key 'optset' in 'variants.fp32.graphs.network' (did you mean 'opset'?)",
    ),
    ("task", 3, "manifest.json is not understood: Expected `str | null`, got `int` - at `$.task`"),
    ("parts", {}, "manifest.json: there are no parts"),
    (
        "parts/network/inputs/x",
        "float33[2]",
        "manifest.json: tensor 'x' has the type 'float33' (did you mean 'float32'?)",
    ),
    ("parts/network/dims/batch", "9..1", "manifest.json: dim 'batch' = 9..1 is not a range of sizes"),
    (
        "parts/network/inputs/x",
        "f" * 1001,
        "manifest.json is not understood: Expected `str` of length <= 1000 - at `$.parts[...].inputs[...]`",
    ),
    (
        "default_variant",
        "fp16",
        "manifest.json: the default variant 'fp16' is none of its variants (known: 'fp32')",
    ),
    (
        "variants/fp32/graphs",
        {},
        "manifest.json: variant fp32 has graphs for none, the parts are 'network'",
    ),
    (
        "variants/fp32/graphs/network/file",
        "assets/model.onnx",
        "manifest.json: the graph 'assets/model.onnx' is not below parts/network/",
    ),
    (
        "variants/fp32/graphs/network/weights",
        "parts/network/w.safetensors",
        "manifest.json: 'parts/network/w.safetensors' is not in the folder of its graph",
    ),
    (
        "variants/fp32/graphs/network/modules",
        f"{PLACE}/absent.json",
        f"manifest.json: '{PLACE}/absent.json' is not among its files",
    ),
    (
        "variants/fp32/graphs/network/n_nodes",
        -1,
        "manifest.json is not understood: Expected `int` >= 0 - at `$.variants[...].graphs[...].n_nodes`",
    ),
    ("files/0/path", "z", "manifest.json: the files are not sorted by path"),
    ("files/0/path", "../x", "the path '../x' is refused: it has '..' as one of its names"),
    ("files/0/path", "manifest.json", "the path 'manifest.json' is listed twice"),
    ("files/0/path", "seal", "the paths 'seal' and 'SEAL' differ in upper and lower case only"),
    (
        "files/0/sha256",
        "A" * 64,
        NOT_UNDERSTOOD + "Expected `str` matching regex '^[0-9a-f]{64}$' - at `$.files[0].sha256`",
    ),
    (
        "files/0/size_bytes",
        -1,
        "manifest.json is not understood: Expected `int` >= 0 - at `$.files[0].size_bytes`",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "text"), REFUSED, ids=[f"{path}={value!r:.20}" for path, value, _ in REFUSED]
)
def test_a_wrong_manifest_is_refused(path: str, value: object, text: str) -> None:
    with pytest.raises(BundleError) as caught:
        decode_manifest(changed(path, value), "here")
    assert caught.value.what == text


def test_a_newer_format_tells_to_upgrade_before_anything_else_is_read() -> None:
    with pytest.raises(BundleError) as caught:
        decode_manifest(b'{"format": 7, "all": "different"}', "m.port")
    assert str(caught.value) == (
        "the bundle has format 7, this anyport reads format 1\n"
        "  where: m.port\n"
        "  do:    pip install --upgrade anyport"
    )


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b'"format"'])
def test_other_json_has_no_format(content: bytes) -> None:
    with pytest.raises(BundleError, match="manifest.json has no format number"):
        decode_manifest(content)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), [[float("inf")]], 2**70, object(), {1: 2}])
def test_settings_that_json_cannot_hold_are_not_written(value: object) -> None:
    manifest = msgspec.structs.replace(sealed(), settings={"a": value})
    with pytest.raises(BundleError, match="^manifest.json "):
        encode_manifest(manifest)


def test_a_manifest_under_another_seal_is_refused() -> None:
    content = encode_manifest(sealed())
    assert decode_sealed(content, seal_text(content), "here") == sealed()
    for wrong in (b"", seal_text(b"{}"), seal_text(content).upper(), seal_text(content) + b"\n"):
        with pytest.raises(
            BundleError, match="^manifest.json is not the one that was sealed: SEAL holds another"
        ):
            decode_sealed(content, wrong, "here")


@pytest.mark.parametrize("text", ["01.2.3", "1.0.1-..", "1.0.1-01", "\u0661.0.0", "1.0.0\n", "1.0", "1.0.0+"])
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    assert not is_version(text)
    assert is_version("1.0.0-rc.1+cpu.01")


def test_graphs_with_weights_of_their_own_say_nothing_of_a_checkpoint() -> None:
    files = [FileEntry(path, 1, "0" * 64) for path in PATHS]
    content = encode_manifest(msgspec.structs.replace(make_manifest(), files=files))
    assert b"external" not in content
    assert b"shards" not in content


@pytest.mark.parametrize(
    "wrong", [{"external": True}, {"shards": [SHARD]}, {"external": True, "shards": [SHARD]}]
)
def test_weights_are_inside_or_their_files_are_named(wrong: dict[str, Any]) -> None:
    files = [FileEntry(path, 1, "0" * 64) for path in PATHS]
    tree = json.loads(encode_manifest(msgspec.structs.replace(make_manifest(), files=files)))
    graph = tree["variants"]["fp32"]["graphs"]["network"]
    graph |= wrong
    with pytest.raises(BundleError, match="must have weights inside the bundle, or be external and name"):
        decode_manifest(json.dumps(tree).encode())
    graph |= {"external": True, "shards": [SHARD], "weights": None}
    decode_manifest(json.dumps(tree).encode())
    graph["shards"][0] = SHARD | {"file": "../x.safetensors"}
    with pytest.raises(BundleError):
        decode_manifest(json.dumps(tree).encode())
