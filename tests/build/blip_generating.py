"""Exported BLIP bundles through their task, beside transformers' own ``generate()``."""

from __future__ import annotations

import hashlib
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from anyport.build import BuildPlan, BuildSettings, build, describe
from anyport.runtime import SessionOptions
from anyport.task import TaskOptions
from anyport.task.generation import Beams, Generation, Greedy
from anyport.task.opening import open_graphs, task_of
from anyport.task.remembered import Remembered
from tests.build.blip_checkpoints import write_checkpoint
from tests.build.building import silent
from tests.recipe.blip_folders import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from anyport.runtime import Session
    from anyport.task.graphs import Graphs
    from anyport.tensors import Signature, TensorSpec
    from tests.build.blip_checkpoints import Size

Feeds = dict[str, np.ndarray]

PROMPTS: Final = (
    "a photo of",
    "the",
    "two cats sitting next to",
    "",
    "a picture of the red car from the left and",
    "dog",
)
QUESTIONS: Final = (
    "what is it?",
    "is anybody standing next to the second car from the left, or sitting in it?",
    "red",
    "what colour is the dog?",
    "two cats or two dogs?",
)
TEXTS: Final = {"caption": ("",), "prompted": PROMPTS, "question": QUESTIONS}


def texts(kind: str, n: int) -> list[str]:
    """Return one text for each picture, of lengths that differ from neighbour to neighbour."""
    return list(islice(cycle(TEXTS[kind]), n))


# ── transformers ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """What ``generate()`` gives for one picture and text.

    Attributes:
        tokens: The whole sequence: first token, prompt, what was written.
        n_new: How many of them were written.
        logits: float32[steps, vocabulary] as the network gives them; empty with beams, whose rows wander.
    """

    tokens: tuple[int, ...]
    n_new: int
    logits: np.ndarray

    @property
    def margins(self) -> np.ndarray:
        """The distance between the best and the second best score of each step."""
        second, first = np.sort(self.logits, axis=1)[:, -2:].T
        return first - second


class Reference:
    """A model, a picture processor and a tokenizer as transformers opens them."""

    def __init__(self, architecture: str, folder: Path, *, remembers: bool = False) -> None:
        self.model: Any = CLASSES[architecture].from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        size = self.model.config.vision_config.image_size
        self._processor = BlipImageProcessorPil(size={"height": size, "width": size})
        if remembers:
            remember_pictures(self.model.vision_model)

    def pixel_values(self, path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            values: torch.Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"]
        return values

    def tokens(self, text: str) -> dict[str, torch.Tensor]:
        found = self._tokenizer(text, return_tensors="pt")
        # a copy: generate() writes its first token into the caller's tensor
        return {name: found[name].clone() for name in ("input_ids", "attention_mask")}

    def write(self, path: Path, text: str, n_beams: int, max_new_tokens: int) -> Generated:
        """Write about one picture; no text is no prompt."""
        found = self.model.generate(
            pixel_values=self.pixel_values(path),
            do_sample=False,
            num_beams=n_beams,
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
            output_logits=n_beams == 1,
            **(self.tokens(text) if text else {}),
        )
        tokens = tuple(found.sequences[0].tolist())
        # a caption's prompt is [CLS] prompt [SEP], of which generate() drops the last; an answer has none
        is_prompted = bool(text) and not hasattr(self.model, "text_encoder")
        n_begun = self.tokens(text)["input_ids"].shape[1] - 1 if is_prompted else 1
        logits = torch.cat(found.logits).numpy() if n_beams == 1 else np.zeros((0, 2), np.float32)
        return Generated(tokens, len(tokens) - n_begun, logits)

    def match(self, path: Path, text: str) -> tuple[float, float]:
        """Return the probability that they belong together, and the cosine of their features."""
        feeds = self.tokens(text) | {"pixel_values": self.pixel_values(path).to(self.model.dtype)}
        with torch.no_grad():
            logits = self.model(**feeds).itm_score
            cosine = self.model(**feeds, use_itm_head=False).itm_score
        return float(torch.softmax(logits, -1)[0, 1]), float(cosine[0, 0])


def remember_pictures(vision: Any) -> None:
    """Let a vision encoder compute each picture once.

    ``generate()`` itself is not touched: it calls ``vision_model`` as ever, with the pixels that it was
    given. In eval mode the answer is a function of these pixels alone, so that the second call for the same
    ones (other words, beams) would compute the same numbers once more.
    """
    forward, known = vision.forward, {}

    def remembered(pixel_values: torch.Tensor, **named: Any) -> Any:
        key = hashlib.sha256(pixel_values.numpy().tobytes()).digest()
        if key not in known:
            known[key] = forward(pixel_values=pixel_values, **named)
        return known[key]

    vision.forward = remembered


# ── the bundle ─────────────────────────────────────────────────────────────────────────────────────────


def build_bundle(folder: Path, size: Size) -> Path:
    """Export a checkpoint; few cases, as each part is proven elsewhere."""
    how = BuildSettings(max_case_bytes=4 << 20, max_cases=size.max_cases, allow=frozenset({"inconclusive"}))
    description = describe({"model": {"source": folder.name}}, "test")
    plan = BuildPlan(description, folder.parent, folder.with_suffix(".port"), how)
    path: Path = build(plan, silent).path
    return path


@dataclass(slots=True)
class Watch:
    """What stands between a task and its graphs.

    Attributes:
        remembers: Each picture is computed once, as `remember_pictures` does for the reference.
        mistake: Part -> what is done to its inputs.
        logits: What the text decoder has given, run by run.
    """

    remembers: bool = False
    mistake: Mapping[str, Callable[[Feeds], Feeds]] = field(default_factory=dict)
    logits: list[np.ndarray] = field(default_factory=list)
    states: Remembered = field(default_factory=Remembered)


class WatchedSession:
    """A session whose inputs may be spoilt and whose outputs are looked at."""

    def __init__(self, part: str, session: Session, watch: Watch) -> None:
        self._part, self._session, self._watch = part, session, watch

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        spoilt = self._watch.mistake.get(self._part, dict)(dict(feeds))
        if self._part == "vision_encoder" and self._watch.remembers:
            return self._remembered(spoilt["pixel_values"])
        found = self._session.run(spoilt)
        if self._part == "text_decoder":
            self._watch.logits.append(found["logits"])
        return found

    def close(self) -> None:
        self._session.close()

    def _remembered(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        keys = [hashlib.sha256(one.tobytes()).digest() for one in pictures]
        states = self._watch.states.find(
            keys, lambda places: list(self._session.run({"pixel_values": pictures[places]})["image_embeds"])
        )
        return {"image_embeds": np.stack(states)}


class WatchedGraphs:
    """The graphs of a bundle, watched."""

    def __init__(self, graphs: Graphs, watch: Watch) -> None:
        self._graphs, self._watch = graphs, watch
        self.path: Path = graphs.path
        self.task: str | None = graphs.task
        self.settings: Mapping[str, Any] = graphs.settings
        self.parts: Mapping[str, Signature | None] = graphs.parts

    def open(self, part: str, options: TaskOptions) -> Session:
        return WatchedSession(part, self._graphs.open(part, options), self._watch)

    def read_bytes(self, relative: str) -> bytes:
        return self._graphs.read_bytes(relative)

    def close(self) -> None:
        self._graphs.close()


class Exported:
    """A bundle's task, watched."""

    def __init__(self, bundle: Path, *, remembers: bool = False) -> None:
        self.watch = Watch(remembers)
        one_thread = TaskOptions(session=SessionOptions(n_threads=1))
        self.task = task_of(WatchedGraphs(open_graphs(bundle), self.watch), one_thread)

    def write(
        self, paths: Sequence[Path], about: Sequence[str], n_beams: int, max_new_tokens: int
    ) -> list[tuple[int, ...]]:
        """Write about pictures; the logits of these runs lie in ``watch.logits`` afterwards."""
        self.watch.logits.clear()
        how = Generation(Greedy() if n_beams == 1 else Beams(n_beams), max_new_tokens=max_new_tokens)
        verb = self.task.caption if hasattr(self.task, "caption") else self.task.ask
        return [tuple(one.token_ids) for one in verb(list(paths), list(about), how)]

    @contextmanager
    def spoilt(self, part: str, mistake: Callable[[Feeds], Feeds]) -> Iterator[None]:
        """Make a mistake in all inputs of a part."""
        self.watch.mistake = {part: mistake}
        yield
        self.watch.mistake = {}


# ── both ───────────────────────────────────────────────────────────────────────────────────────────────


def checkpoint(architecture: str, size: Size, folder: Path) -> Path:
    """Return where the checkpoint lies; its bundle lies beside it."""
    return folder / f"{size.name}-{architecture.lower()}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A model of transformers, and what was exported of it."""

    reference: Reference
    exported: Exported
    size: Size

    @classmethod
    def of(cls, architecture: str, size: Size, folder: Path) -> Pair:
        """Write a checkpoint into a folder, build a bundle of it, and open both."""
        path = checkpoint(architecture, size, folder)
        if not path.exists():
            write_checkpoint(architecture, size, path)
        bundle = path.with_suffix(".port")
        if not bundle.exists():
            build_bundle(path, size)
        remembers = size.name == "base"  # its vision encoder takes 2 s a picture
        reference = Reference(architecture, path, remembers=remembers)
        return cls(reference, Exported(bundle, remembers=remembers), size)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of pictures and texts on both sides.

    Attributes:
        expected: transformers' sequences, each made alone.
        singles: The bundle's, each made alone.
        batch: The bundle's, all at once.
        n_long: How many different texts of 8 or more new tokens there are.
        steps: float[2, steps] of all texts: the top-2 distance of transformers' logits, and the largest
            distance of the bundle's logits from them; greedy only.
    """

    expected: tuple[tuple[int, ...], ...]
    singles: tuple[tuple[int, ...], ...]
    batch: tuple[tuple[int, ...], ...]
    n_long: int
    steps: np.ndarray | None

    @property
    def clearance(self) -> float:
        """How many times the error of its step the top-2 distance is, at the step where that is least.

        Below 2 the two best logits may change places, and equal tokens are luck.
        """
        return math.inf if self.steps is None else float((self.steps[0] / self.steps[1]).min())

    def __str__(self) -> str:
        """Return the figures in one line."""
        n = len(self.expected)
        figures = ""
        if self.steps is not None:
            margin, error = self.steps[0].min(), self.steps[1].max()
            figures = f"; least margin {margin:.2e}, largest error {error:.2e}, least of "
            figures += f"margin / error of a step {self.clearance:.1f}"
        return (
            f"{n_equal(self.expected, self.singles)} of {n} singles and {n_equal(self.expected, self.batch)} "
            f"of {n} in one batch are equal; {self.n_long} different texts of 8 or more new tokens{figures}"
        )


def n_equal(some: Sequence[tuple[int, ...]], others: Sequence[tuple[int, ...]]) -> int:
    """Count the equal sequences."""
    return sum(one == other for one, other in zip(some, others, strict=True))


def compare(pair: Pair, paths: Sequence[Path], kind: str, n_beams: int) -> Comparison:
    """Write about pictures with transformers one by one, with the bundle one by one, and with it at once."""
    about, most = texts(kind, len(paths)), pair.size.max_new_tokens
    batch = pair.exported.write(paths, about, n_beams, most)
    expected, singles, steps = [], [], []
    for path, text in zip(paths, about, strict=True):
        expected.append(generated := pair.reference.write(path, text, n_beams, most))
        singles += pair.exported.write([path], [text], n_beams, most)
        if n_beams == 1:
            logits = np.concatenate(pair.exported.watch.logits)
            n_steps = min(len(logits), len(generated.logits))  # they differ only where the tokens do, too
            errors = np.abs(logits[:n_steps] - generated.logits[:n_steps]).max(axis=1)
            steps.append(np.stack([generated.margins[:n_steps], errors]))
    return Comparison(
        tuple(one.tokens for one in expected),
        tuple(singles),
        tuple(batch),
        len({one.tokens[-one.n_new :] for one in expected if one.n_new >= 8}),
        np.concatenate(steps, axis=1) if steps else None,
    )
