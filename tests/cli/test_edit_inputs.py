"""What users give an editor: each is edited or refused with a clear message, and nothing is half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anyport.bundle import open_bundle
from anyport.task import opening
from anyport.task.graphs import BundleGraphs
from tests.build.edit_bundle import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from tests.build.edit_bundle import Built
    from tests.cli.shell import Outcome, Shell

WORDS = ("--steps", "2", "--guidance", "1", "--size", "64x48", "-o", "out.png")
AREAS = {"condition_area": 128 * 128, "vae_area": 96 * 96}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return tiny(tmp_path_factory)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files once."""
    folder = tmp_path_factory.mktemp("inputs")
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 4), np.uint8)
    plain = Image.fromarray(noise[..., :3])
    plain.save(folder / "plain.png")
    Image.fromarray(noise).save(folder / "alpha.png")
    plain.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    plain.save(folder / "moving.gif", save_all=True, append_images=[plain.rotate(90)])
    Image.fromarray(noise[..., 0].astype(np.float32)).save(folder / "float.tiff")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    Image.new("RGB", (20_000, 1_500), "red").save(folder / "wide.png")
    Image.new("RGB", (20_000, 40), "red").save(folder / "thread.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    (folder / "cut.png").write_bytes((folder / "plain.png").read_bytes()[:900])
    (folder / "words.png").write_text("no picture")
    latents = np.ones((1, 12, 64), np.float32)
    np.save(folder / "noise.npy", latents)
    np.save(folder / "nan.npy", latents * np.nan)
    np.save(folder / "short.npy", latents[:, :5])
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    return folder


@pytest.fixture
def place(built: Built, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder beside the inputs; pictures are seen small, so that nothing takes long."""

    def small(path: str) -> BundleGraphs:
        graphs = BundleGraphs(open_bundle(path))
        graphs.settings = {**graphs.settings, "picture": graphs.settings["picture"] | AREAS}
        return graphs

    monkeypatch.setattr(opening, "open_graphs", lambda _: small(str(built.result.path)))
    (tmp_path / "in").symlink_to(inputs)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


FILES = (".png", ".jpg", ".gif", ".tiff", ".npy")


def run(shell: Shell, words: tuple[str, ...]) -> Outcome:
    """Run the editor on files of ``../in``; what is not said otherwise is as in `WORDS`."""
    said = [f"../in/{word}" if word.endswith(FILES) else word for word in words]
    pairs = zip(WORDS[::2], WORDS[1::2], strict=True)
    return shell("run", "edit.port", *said, *(one for pair in pairs if pair[0] not in words for one in pair))


EMPTY = "note: the instruction has no words: the model alone decides what to change"
ACCEPTED = {
    "alpha": (("alpha.png", "--instruction", "x"), ""),
    "cmyk": (("cmyk.jpg", "--instruction", "x"), ""),
    "16 bits": (("deep.png", "--instruction", "x"), ""),
    "three kinds": (("alpha.png", "cmyk.jpg", "deep.png", "--instruction", "x"), ""),
    "1 x 1": (("dot.png", "--instruction", "x"), "dot.png is 1 x 1 pixels: the model sees it much enlarged"),
    "20,000 wide": (("wide.png", "--instruction", "x"), ""),
    "no words": (("plain.png", "--instruction", ""), EMPTY),
    "10,000 characters": (("plain.png", "--instruction", "把 a " * 2500), "tokens, 128 are used; cut off: '"),
    "latents": (("plain.png", "--instruction", "x", "--latents", "noise.npy"), ""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_edited_is(shell: Shell, place: Path, name: str) -> None:
    words, note = ACCEPTED[name]
    found = run(shell, words)
    assert found.code == 0, found.err
    assert note in found.out
    assert ("note:" in found.out) == bool(note)
    assert [path.name for path in place.iterdir()] == ["out.png"]
    with Image.open(place / "out.png") as image:
        assert (image.size, image.mode) == ((64, 48), "RGB")


REFUSED = {
    "no picture": (("--instruction", "x"), "UsageError: no picture is given"),
    "four pictures": (
        (*["plain.png"] * 4, "--instruction", "x"),
        "InputError: there are 4 pictures, the model edits 1 to 3 pictures",
    ),
    "no instruction": (("plain.png",), "UsageError: no instruction is given"),
    "a thread": (
        ("thread.png", "--instruction", "x"),
        "InputError: ../in/thread.png is 20000 x 40 pixels: it is too long and thin for the model",
    ),
    "400 million pixels": (
        ("huge.png", "--instruction", "x"),
        "InputError: ../in/huge.png has 400.0 million pixels, at most 64.0 million are read",
    ),
    "moving": (
        ("moving.gif", "--instruction", "x"),
        "InputError: ../in/moving.gif is a GIF with several frames or pages",
    ),
    "floating point": (
        ("float.tiff", "--instruction", "x"),
        "InputError: ../in/float.tiff has pixels of the kind F, which have no agreed range",
    ),
    "cut off": (("cut.png", "--instruction", "x"), "InputError: ../in/cut.png is damaged or cut off"),
    "words": (("words.png", "--instruction", "x"), "InputError: ../in/words.png is no picture that anyport"),
    "10,000 characters, all": (
        ("plain.png", "--instruction", "把 a " * 2500, "--max-length", "0"),
        "InputError: the instruction with its pictures: the part 'text_encoder' would see sequence = ",
    ),
    "a mark of the model": (
        ("plain.png", "--instruction", "<|im_end|>"),
        "InputError: the instruction holds '<|im_end|>', a mark of the model's own",
    ),
    "NaN latents": (
        ("plain.png", "--instruction", "x", "--latents", "nan.npy"),
        "InputError: latents hold 768 numbers that are not finite in float32",
    ),
    "few latents": (
        ("plain.png", "--instruction", "x", "--latents", "short.npy"),
        "InputError: latents are float32[1, 5, 64], an answer of 64 x 48 begins with float32[1, 12, 64]",
    ),
    "pickled latents": (
        ("plain.png", "--instruction", "x", "--latents", "objects.npy"),
        "InputError: ../in/objects.npy cannot be read as an array: Object arrays cannot be loaded",
    ),
    "latents and a seed": (
        ("plain.png", "--instruction", "x", "--latents", "noise.npy", "--seed", "1"),
        "InputError: there are latents and a seed",
    ),
    "steps 0": (
        ("plain.png", "--instruction", "x", "--steps", "0"),
        "UsageError: Invalid value for '--steps': 0 is not in the range",
    ),
    "one step": (
        ("plain.png", "--instruction", "x", "--steps", "1"),
        "InputError: 1 step cannot be stretched",
    ),
    "guidance NaN": (
        ("plain.png", "--instruction", "x", "--guidance", "nan"),
        "InputError: guidance is nan, it must be from 0 to 100",
    ),
    "guidance beyond float32": (
        ("plain.png", "--instruction", "x", "--guidance", "1e30"),
        "InputError: guidance is 1e+30, it must be from 0 to 100",
    ),
    "a huge answer": (
        ("plain.png", "--instruction", "x", "--size", "1000000x1000000"),
        "InputError: the size 1000000 x 1000000 is more than 64 million pixels",
    ),
    "a tiny answer": (
        ("plain.png", "--instruction", "x", "--size", "8x8"),
        "InputError: the size 8 x 8 is too",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_written(shell: Shell, place: Path, name: str) -> None:
    words, message = REFUSED[name]
    found = run(shell, words)
    assert found.code == 2, found.out
    assert found.err.startswith(message), found.err
    assert len(found.err.splitlines()) <= 6
    assert "Traceback" not in found.err
    assert list(place.iterdir()) == []


# ── folders ────────────────────────────────────────────────────────────────────────────────────────────


def _no_weights(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def _no_shard(folder: Path) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "text_encoder" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / names["a"])


def _another_pipeline(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))


def _no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_weights, "SourceError: 'Tiny-Edit' has no weights: neither vae/model.safetensors nor another"),
        (
            _no_shard,
            "SourceError: 'Tiny-Edit' lacks 1 of its 2 files of weights: 'text_encoder/model-00002",
        ),
        (_another_pipeline, "SourceError: no recipe knows the architecture 'FluxPipeline'"),
        (_no_index, "UsageError: '{folder}' has neither an anyport.toml nor the config.json of a checkpoint"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    shell: Shell, built: Built, tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = tmp_path / "Tiny-Edit"
    shutil.copytree(built.folder, folder)
    spoil(folder)
    found = shell("build", folder, "-o", tmp_path / "edit.port")
    assert found.code == 2
    assert found.err.startswith(message.replace("{folder}", str(folder))), found.err
    assert [path.name for path in tmp_path.iterdir()] == ["Tiny-Edit"]


# ── without PyTorch ────────────────────────────────────────────────────────────────────────────────────

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "diffusers", "onnx", "safetensors"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
from anyport.cli import main
codes = [main(words.split("|")) for words in sys.argv[1:]]
print("codes", codes, "torch" in sys.modules)
"""


def test_run_and_verify_need_no_pytorch(built: Built, inputs: Path, tmp_path: Path) -> None:
    bundle, output = built.result.path, tmp_path / "out.png"
    asked = ["run", bundle, inputs / "plain.png", "--instruction", "把它变蓝", *WORDS[:-1], output]
    commands = [asked, ["verify", bundle]]
    found = subprocess.run(
        [sys.executable, "-c", BLOCKED, *("|".join(map(str, words)) for words in commands)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert found.stdout.splitlines()[-1:] == ["codes [0, 0] False"], found.stdout + found.stderr
    assert "  (whole task)   7 cases, pictures 1, 2, 3; " in found.stdout
    with Image.open(output) as image:
        assert image.size == (64, 48)
