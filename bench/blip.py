"""BLIP as its users run it, PyTorch against the bundle: `python bench/blip.py`.

A seeded BLIP of the published base size (12 layers of 768, pictures of 384 pixels) becomes a bundle with an
INT8 variant, and then PyTorch eager with its own cache (`generate()`), the fp32 graphs and the INT8 graphs do
the same work in interleaved rounds: captions of 20 tokens for one picture and for four at a time, and the
vision encoder alone. The numbers are paired ratios of CPU time on one thread.

Size, latency, peak memory (of a process of its own) and what INT8 costs make the table that follows. The exit
code is 1 as soon as a target is missed. `--size small` is a quick look without targets; `--keep FOLDER` keeps
what was built, and uses what is there. About 40 minutes at base size, most of it the build.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image
from transformers import BlipConfig, BlipForConditionalGeneration

from anyport.bench.blank import Blank
from anyport.bench.lineups import line_ups, mean_ratio
from anyport.bench.memory import mark_memory, peak_since
from anyport.bench.pairing import PairedRatio, PairSettings, paired_ratios
from anyport.build import BuildPlan, BuildSettings, build, describe
from anyport.bundle import Bundle, open_bundle
from anyport.runtime import Session, SessionOptions, open_session
from anyport.task import TaskOptions, open_task
from anyport.task.generation import Generation
from anyport.task.picture_settings import PictureSettings, fit_picture, pixel_values
from anyport.verify.lossy import metric_line
from machine import this_machine

if TYPE_CHECKING:
    from anyport.task.caption import Captioner

PYTORCH: Final = "PyTorch"
EXACT: Final = "fp32"
METHOD: Final = "int8-dynamic:u8s8"  # what transformers take; one flavour, for each judges 64 pictures
LOSSY: Final = "int8-dynamic-u8s8"
# seeded weights choose between near-equal scores, so their agreement says nothing of trained ones
_METRICS: Final = {"tokens": "top-1:0.8"}
_N_TOKENS: Final = 20
_N_PICTURES: Final = 80  # 64 judge INT8; some do not count, where two tokens are as good as equal
_TARGETS: Final = {"caption, 1 picture": 1.4, "caption, 4 pictures": 1.25, "vision encoder": 1.25}
_SMALLER: Final = 3.6  # the INT8 vision encoder
_WORDS: Final = "[PAD] [UNK] [CLS] [SEP] [MASK] a the of cat dog photo picture in red blue on two".split()  # noqa: SIM905  (a list of words is easier to read so)


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a network.

    Attributes:
        width: Of the states; heads are 64 wide.
        layers: Of each network.
        picture: Height and width, in pixels.
        vocabulary: Tokens.
    """

    width: int
    layers: int
    picture: int
    vocabulary: int


SIZES: Final = {"base": Size(768, 12, 384, 30524), "small": Size(192, 4, 96, 1000)}


def main() -> int:
    """Build, race, print; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="BLIP, PyTorch against the bundle.")
    parser.add_argument("--size", choices=list(SIZES), default="base")
    parser.add_argument("--keep", type=Path, help="a folder for what is built; what is there is used")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    torch.set_num_threads(1)
    if words.peak is not None:
        return show_peak(words.peak[0], Path(words.peak[1]))
    print(this_machine(), flush=True)
    with ExitStack() as stack:
        folder = words.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        make_bundle(folder, SIZES[words.size])
        found = race(folder, words.rounds)
        missed = report(folder, found)
    if words.size != "base":
        return 0
    print("\n".join(f"MISSED  {line}" for line in missed) or "every target is met")
    return int(bool(missed))


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────
def make_bundle(folder: Path, size: Size) -> None:
    """Write a seeded checkpoint, pictures, and their bundle, unless they are there."""
    if (folder / "blip.port").exists():
        return
    write_checkpoint(folder / "checkpoint", size)
    write_pictures(folder / "pictures")
    words = {
        "model": {"source": "checkpoint"},
        "build": {"compress": [METHOD]},
        "metrics": _METRICS,
        "calibrate": {"samples": "pictures"},
    }
    settings = BuildSettings(max_cases=20, allow=frozenset({"inconclusive"}))
    plan = BuildPlan(describe(words, "blip"), folder, folder / "blip.port", settings)
    build(plan, lambda step, line: print(f"  {step:<9} {line}", file=sys.stderr, flush=True))


def write_checkpoint(folder: Path, size: Size) -> None:
    """Write a folder as Hugging Face keeps it; weights are spread so that captions differ."""
    sizes = {
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // 64,
    }
    words = {"vocab_size": size.vocabulary, "encoder_hidden_size": size.width, "max_position_embeddings": 512}
    marks = {"bos_token_id": size.vocabulary - 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        vision_config={**sizes, "image_size": size.picture, "patch_size": 16},
        text_config={**sizes, **words, **marks},
    )
    model = BlipForConditionalGeneration(config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                is_table = "embedding" in name and "patch" not in name
                spread = 0.6 if is_table else (1.5 / weight[0].numel()) ** 0.5
                weight.copy_(torch.randn(weight.shape, generator=random) * spread)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(_WORDS) + "\n", encoding="utf-8")


def write_pictures(folder: Path) -> None:
    """Write crops of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(_N_PICTURES):
        picture = load_sample_images().images[number % 2]
        side = int(random.integers(96, 360))
        top, left = (int(random.integers(0, length - side)) for length in picture.shape[:2])
        crop = Image.fromarray(picture[top : top + side, left : left + side])
        crop.save(folder / f"{number:03}.png")


# ── the race ────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Found:
    """What one contest found: contender -> ratio against PyTorch."""

    what: str
    ratios: Mapping[str, PairedRatio]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The same pictures twice: as a bundle takes them, and as `float32[batch, 3, S, S]` for PyTorch."""

    pictures: Sequence[Image.Image]
    pixels: np.ndarray


class PyTorch:
    """transformers' own way: `generate()` with its cache."""

    def __init__(self, checkpoint: Path) -> None:
        model = BlipForConditionalGeneration.from_pretrained(checkpoint)  # in eval mode
        self._model: Any = model

    def caption(self, inputs: Inputs, n_rows: int) -> list[list[int]]:
        """Return the tokens of 20 steps."""
        pixels = torch.from_numpy(inputs.pixels[:n_rows])
        exactly = {"max_new_tokens": _N_TOKENS, "min_new_tokens": _N_TOKENS}
        with torch.no_grad():
            tokens = self._model.generate(pixels, do_sample=False, num_beams=1, **exactly)
        rows: list[list[int]] = tokens.tolist()
        return rows

    def encode(self, inputs: Inputs) -> object:
        """Return the states of one picture."""
        with torch.no_grad():
            return self._model.vision_model(torch.from_numpy(inputs.pixels[:1])).last_hidden_state

    def close(self) -> None:
        """There is nothing to close."""


class Ported:
    """A variant of the bundle."""

    def __init__(self, bundle: Path, variant: str) -> None:
        options = TaskOptions(variant=variant, session=SessionOptions(n_threads=1))
        self._task: Captioner = open_task(bundle, options)
        self._bundle = open_bundle(bundle)
        self._variant = variant
        self._exactly = Generation(max_new_tokens=_N_TOKENS, min_new_tokens=_N_TOKENS)

    def caption(self, inputs: Inputs, n_rows: int) -> list[list[int]]:
        """Return the tokens of 20 steps; fitting the pictures is part of it."""
        found = self._task.caption(inputs.pictures[:n_rows], "", self._exactly)
        return [list(one.token_ids) for one in found]

    def encode(self, inputs: Inputs) -> object:
        """Return the states of one picture."""
        return self._vision.run({"pixel_values": inputs.pixels[:1]})

    def close(self) -> None:
        """Close the sessions."""
        if "_vision" in self.__dict__:
            self._vision.close()
        self._task.close()
        self._bundle.close()

    @cached_property
    def _vision(self) -> Session:
        graph = self._bundle.graph_file("vision_encoder", self._variant)
        return open_session(graph, SessionOptions(n_threads=1))


Everyone = Mapping[str, PyTorch | Ported]


def race(folder: Path, n_rounds: int) -> list[Found]:
    """Let everyone do the same work; each is opened at every place in turn."""
    inputs = read_inputs(folder, 4)
    orders = line_ups((PYTORCH, *variants(folder)))
    settings = PairSettings(n_rounds=max(3, -(-n_rounds // len(orders))), n_repeats=1, warmup=1)
    collected = [one_order(folder, order, inputs, settings) for order in orders]
    return [
        Found(what, {name: mean_ratio([found[what][name] for found in collected]) for name in orders[0]})
        for what in CONTESTS
    ]


def one_order(
    folder: Path, order: Sequence[str], inputs: Inputs, settings: PairSettings
) -> dict[str, dict[str, PairedRatio]]:
    """Open everyone in this order, and return contest -> contender -> ratio."""
    with ExitStack() as stack:
        everyone = {name: opened(folder, name) for name in order}
        for one in everyone.values():
            stack.callback(one.close)
        check_tokens(everyone, inputs)
        found = {}
        for what, work in CONTESTS.items():
            runs = {name: partial(work, one, inputs) for name, one in everyone.items()}
            found[what] = paired_ratios(runs, PYTORCH, settings)
            print(f"  {what}: done in the order {', '.join(order)}", file=sys.stderr, flush=True)
    return found


CONTESTS: Final[Mapping[str, Callable[[PyTorch | Ported, Inputs], object]]] = {
    "caption, 1 picture": lambda one, inputs: one.caption(inputs, 1),
    "caption, 4 pictures": lambda one, inputs: one.caption(inputs, 4),
    "vision encoder": lambda one, inputs: one.encode(inputs),
}


def opened(folder: Path, name: str) -> PyTorch | Ported:
    """Open one contender."""
    return PyTorch(folder / "checkpoint") if name == PYTORCH else Ported(folder / "blip.port", name)


def variants(folder: Path) -> list[str]:
    """Return the variants of the bundle, the exact one first."""
    with open_bundle(folder / "blip.port") as bundle:
        return sorted(bundle.manifest.variants, key=lambda name: name != EXACT)


def read_inputs(folder: Path, n_pictures: int) -> Inputs:
    """Read the first pictures."""
    paths = sorted((folder / "pictures").iterdir())[:n_pictures]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    with open_bundle(folder / "blip.port") as bundle:  # nothing of a network is opened for that
        settings = PictureSettings(**bundle.manifest.settings["picture"])
    fitted = [fit_picture(one, settings, str(path)) for one, path in zip(pictures, paths, strict=True)]
    return Inputs(pictures, pixel_values(fitted, settings, "float32"))


def check_tokens(everyone: Everyone, inputs: Inputs) -> None:
    """Refuse to time answers that differ: the work would not be the same.

    Raises:
        SystemExit: The exact graphs say something else than PyTorch.
    """
    wanted, found = (everyone[name].caption(inputs, 1) for name in (PYTORCH, EXACT))
    if wanted != found:
        raise SystemExit(f"PyTorch says {wanted}, the bundle {found}")


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────
def report(folder: Path, found: Sequence[Found]) -> list[str]:
    """Print the tables; return what missed its target."""
    print(f"\n{'CPU time, PyTorch = 1':<24}" + "".join(f"{name:>26}" for name in found[0].ratios))
    for one in found:
        cells = (f"{r.median:.2f} [{r.low:.2f}-{r.high:.2f}] {r.cpu_s:6.2f} s" for r in one.ratios.values())
        print(f"{one.what:<24}" + "".join(f"{cell:>26}" for cell in cells))
    latency = found[0].ratios
    print(f"\n{'':<12}{'size':>10}{'latency':>10}{'memory':>11}  answers")
    for name in latency:
        size_mb = contender_bytes(folder, name) / 1e6
        peak = peak_of(folder, name)
        print(f"{name:<12}{size_mb:>7.0f} MB{latency[name].cpu_s:>8.2f} s{peak:>11}  {drop(folder, name)}")
    print(flush=True)
    return missed_targets(folder, found)


def missed_targets(folder: Path, found: Sequence[Found]) -> list[str]:
    """Return a line for each target that is not met."""
    missed = [
        f"{one.what}: {one.ratios[EXACT].median:.2f}x of {_TARGETS[one.what]}x"
        for one in found
        if one.ratios[EXACT].median < _TARGETS[one.what]
    ]
    with open_bundle(folder / "blip.port") as bundle:
        if LOSSY not in bundle.manifest.variants:
            return [*missed, "there is no INT8 variant"]
        exact, lossy = (graph_bytes(bundle, name, "vision_encoder") for name in (EXACT, LOSSY))
    print(f"INT8 vision encoder: {exact / lossy:.2f}x smaller ({exact / 1e6:.0f} -> {lossy / 1e6:.0f} MB)")
    return missed + ([f"{exact / lossy:.2f}x smaller of {_SMALLER}x"] if exact < _SMALLER * lossy else [])


def graph_bytes(bundle: Bundle, variant: str, part: str) -> int:
    """Return the size of one graph and its weights."""
    graph = bundle.graph_file(part, variant)
    weights = graph.path.parent / Path(graph.entry.weights or graph.path.name).name
    return sum(path.stat().st_size for path in {graph.path, weights})


def contender_bytes(folder: Path, name: str) -> int:
    """Return what has to be delivered: a checkpoint, or the graphs of a variant."""
    if name == PYTORCH:
        return sum(path.stat().st_size for path in (folder / "checkpoint").iterdir())
    with open_bundle(folder / "blip.port") as bundle:
        return sum(graph_bytes(bundle, name, part) for part in bundle.manifest.parts)


def drop(folder: Path, name: str) -> str:
    """Say how far the answers are from PyTorch's."""
    if name == PYTORCH:
        return "the reference"
    with open_bundle(folder / "blip.port") as bundle:
        metric = bundle.manifest.variants[name].metric
    return "the same tokens" if metric is None else metric_line(metric)


def peak_of(folder: Path, name: str) -> str:
    """Let a process of its own open a contender and caption one picture; return its peak."""
    command = [sys.executable, str(Path(__file__).resolve()), "--peak", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak_bytes = json.loads(done.stdout.splitlines()[-1])
    return peak_bytes if isinstance(peak_bytes, str) else f"{peak_bytes / 1e6:.0f} MB"


def show_peak(name: str, folder: Path) -> int:
    """Print what opening one contender and captioning one picture needed, above the imports."""
    inputs = read_inputs(folder, 1)
    mark = mark_memory()
    opened(folder, name).caption(inputs, 1)
    peak = peak_since(mark)
    print(json.dumps(peak.why if isinstance(peak, Blank) else peak))
    return 0


if __name__ == "__main__":
    sys.exit(main())
