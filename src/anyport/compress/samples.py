"""The user's own inputs, to find ranges and to judge by: any number of passes, one in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import msgspec

from anyport.bench.inputs import bench_case, choose_sizes
from anyport.compress.methods import needs_samples
from anyport.errors import InputError, SourceError, UsageError, did_you_mean, require
from anyport.task.picture_settings import PictureSettings, fit_picture, pixel_values
from anyport.task.pictures import read_picture
from anyport.tensors import check_feeds
from anyport.verify import MIN_SAMPLES
from anyport.verify.padding import is_batched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from anyport.compress.methods import Method
    from anyport.tensors import Signature, TensorSpec

RANDOM: Final = "random"
MAX_EVALUATION: Final = 256
_N_RANDOM: Final = 128
N_CALIBRATION: Final = 64
_LEAST_CALIBRATION: Final = 8
_SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_PICTURE_AXES: Final = 4
_MODES: Final = {1: "L", 3: "RGB"}


@runtime_checkable
class Samples(Protocol):
    """Inputs of a graph, in an order that stays."""

    @property
    def name(self) -> str:
        """What messages call them, with what a reader should know of them."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Begin again; each sample is input name -> array."""
        ...


@runtime_checkable
class FileSamples(Protocol):
    """Samples that are made of files, one each."""

    def file(self, number: int) -> Path:
        """Return the file of a sample, counted from 0."""
        ...


@dataclass(frozen=True, slots=True)
class PictureSamples:
    """The pictures of a folder and the folders in it, one for each run, in the order of their paths."""

    name: str
    paths: tuple[Path, ...]
    spec: TensorSpec
    settings: PictureSettings

    def __len__(self) -> int:
        """How many there are."""
        return len(self.paths)

    def file(self, number: int) -> Path:
        """Return the picture of a sample, counted from 0."""
        return self.paths[number]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Read one after the other."""
        for path in self.paths:
            pixels = fit_picture(read_picture(path), self.settings, str(path))
            yield {self.spec.name: pixel_values([pixels], self.settings, self.spec.dtype)}


@dataclass(frozen=True, slots=True)
class FunctionSamples:
    """What a function yields, checked against the graph; it is called anew for each pass."""

    name: str
    function: Callable[[], object]
    signature: Signature
    n_samples: int = 0

    def __len__(self) -> int:
        """How many there are."""
        return self.n_samples

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Call the function.

        Raises:
            InputError: A sample does not fit the graph, or there are fewer than the first time.
            SourceError: The function fails, or returns no samples.
        """
        number = 0
        for number, feeds in enumerate(self._given(), start=1):
            if not isinstance(feeds, Mapping):
                raise InputError(
                    f"'{self.name}' yields a {type(feeds).__name__}", do="yield dicts: input name -> array"
                )
            try:
                check_feeds(feeds, self.signature.inputs, self.signature.dims)
            except InputError as err:
                raise InputError(err.what, where=f"sample {number} of '{self.name}'", do=err.do) from err
            yield dict(feeds)
        if number < self.n_samples:
            raise InputError(
                f"'{self.name}' gave {self.n_samples} samples at first, and {number} when called again",
                do="begin anew at each call: yield the samples in the function itself",
            )

    def _given(self) -> Iterator[object]:
        try:
            found = self.function()
            if isinstance(found, Iterable):
                yield from found
                return
        except Exception as err:  # the user's own code may raise anything
            from anyport.source.lines import first_line, user_line_of

            what = f"'{self.name}' fails: {type(err).__name__}: {first_line(err)}"
            raise SourceError(what, where=user_line_of(err)) from err
        code = getattr(self.function, "__code__", None)
        raise SourceError(
            f"'{self.name}' returns {type(found).__name__} {found!r:.40}, no samples",
            where=None if code is None else f"{Path(code.co_filename).name}:{code.co_firstlineno}",
            do="yield dicts: input name -> array",
        )


@dataclass(frozen=True, slots=True)
class RandomSamples:
    """Random numbers of the declared types and ranges: ranges found with them are those of no real input."""

    signature: Signature
    n_samples: int = _N_RANDOM
    name: str = "random numbers, not your data"

    def __len__(self) -> int:
        """How many there are."""
        return self.n_samples

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Draw them: the same each time."""
        sizes = choose_sizes(self.signature, {})
        for seed in range(self.n_samples):
            yield bench_case(self.signature, sizes, seed).arrays(self.signature.inputs)


@dataclass(frozen=True, slots=True)
class Share:
    """Some of other samples, by their places."""

    name: str
    whole: Samples
    places: frozenset[int]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Go over all, and give those."""
        for place, feeds in enumerate(self.whole):
            if place in self.places:
                yield feeds


def samples_from(
    text: str, signature: Signature, folder: Path, settings: Mapping[str, Any] | None = None
) -> Samples:
    """Find samples by the words of a user.

    Args:
        text: A folder of pictures, ``calibrate.py:samples`` (a function that yields dicts of arrays), or
            ``random``.
        signature: Of the graph.
        folder: What relative paths are relative to.
        settings: Of the task; how pictures become pixel values stands there.

    Raises:
        InputError: There is no such folder, no picture in it, or a sample does not fit the graph.
        UsageError: The graph takes no pictures, or the words are not understood.
    """
    if text == RANDOM:
        return RandomSamples(signature)
    if ":" in text and not (folder / text).is_dir():
        return _from_function(text, signature, folder)
    return _from_folder(text, signature, folder / text, settings)


def divide(
    samples: Samples, signature: Signature, methods: Iterable[Method]
) -> tuple[Samples | None, Samples]:
    """Split samples as these methods need it: without ranges to find, all of them judge.

    Raises:
        InputError: They are too few; that is said before anything is made of them.
    """
    calibration, judging = split(samples, N_CALIBRATION if needs_samples(methods) else 0)
    if len(judging) >= MIN_SAMPLES or _count(judging, signature) >= MIN_SAMPLES:
        return (calibration if len(calibration) else None), judging
    n_samples = _count(samples, signature)
    check_number(n_samples, samples.name, with_ranges=bool(len(calibration)))
    raise InputError(
        f"{n_samples} samples of {samples.name} leave {_count(judging, signature)} to judge by, "
        f"{MIN_SAMPLES} are needed",
        where=f"they come in {len(samples)} batches",
        do="give more, or smaller batches",
    )


def _count(samples: Samples, signature: Signature) -> int:
    """Return how many samples there are: of a batch, each place is one."""
    is_batch = all(is_batched(output, signature.inputs) for output in signature.outputs)
    first = signature.outputs[0].axes[0].text if is_batch else ""
    batched = [spec.name for spec in signature.inputs if spec.axes and spec.axes[0].text == first]
    return sum(len(feeds[batched[0]]) if batched else 1 for feeds in samples)


def words_for(samples: Samples, place: int) -> str:
    """Name a sample so that the user finds it: its file, else its number, from 1, among all given."""
    whole, number = samples, place
    while isinstance(whole, Share):
        number = sorted(whole.places)[number]
        whole = whole.whole
    if isinstance(whole, FileSamples):
        return f"'{whole.file(number)}'"
    return f"sample {number + 1} of '{samples.name}'"


def split(samples: Samples, n_calibration: int = N_CALIBRATION) -> tuple[Samples, Samples]:
    """Divide samples into those that set the ranges and those, others, that judge the result.

    The former are spread evenly, and at most half of all; fewer where that leaves `MIN_SAMPLES` to judge by;
    none if none are asked for. Of the latter at most 256 are taken. A single one serves both, and its name
    says so.
    """
    n = len(samples)
    if n < 2 and n_calibration:  # noqa: PLR2004 -- one cannot be divided
        same = Share(f"{samples.name} (the same sample that set the ranges)", samples, frozenset(range(n)))
        return samples, same
    n_first = min(n_calibration, n // 2)
    if n_first and n - n_first < MIN_SAMPLES <= n - _LEAST_CALIBRATION:
        n_first = n - MIN_SAMPLES
    first = frozenset(place * n // n_first for place in range(n_first))
    rest = [place for place in range(n) if place not in first]
    step = max(1, len(rest) / MAX_EVALUATION)
    second = frozenset(rest[int(i * step)] for i in range(min(len(rest), MAX_EVALUATION)))
    return (
        Share(f"{samples.name} ({n_first} of {n})", samples, first),
        Share(f"{samples.name} ({len(second)} {'others ' if first else ''}of {n})", samples, second),
    )


def check_words(names: Iterable[str]) -> None:
    """Refuse names that say nothing about pictures: where no task is there to have others.

    Raises:
        UsageError: Naming the first.
    """
    known = _picture_words()
    for name in names:
        if name not in known:
            raise UsageError(f"--set {name} says nothing about pictures{did_you_mean(name, known)}")


def _picture_words() -> frozenset[str]:
    return frozenset(field.name for field in msgspec.structs.fields(PictureSettings))


def _from_function(text: str, signature: Signature, folder: Path) -> FunctionSamples:
    require("torch", extra="build", step=f"loading '{text}'")
    from anyport.source.finding import load_value

    found = FunctionSamples(text, load_value(text, folder), signature)
    n_samples = sum(1 for _ in found)
    if n_samples == 0:
        raise InputError(f"'{text}' yields no samples")
    return FunctionSamples(text, found.function, signature, n_samples)


def _from_folder(
    text: str, signature: Signature, folder: Path, settings: Mapping[str, Any] | None
) -> PictureSamples:
    paths = pictures_in(folder, text)
    spec = _picture_input(signature, text)
    words = {name: value for name, value in (settings or {}).items() if name in _picture_words()}
    said = "" if words else ", pixels / 255 for want of settings"
    found = _settings(words, spec, text)
    return PictureSamples(f"{text} ({len(paths)} pictures{said})", paths, spec, found)


def pictures_in(folder: Path, text: str) -> tuple[Path, ...]:
    """Return the pictures of a folder and the folders in it, in the order of their paths.

    Raises:
        InputError: There is no such folder, or no picture in it; ``text`` is what messages call it.
    """
    if not folder.is_dir():
        raise InputError(
            f"there is no folder '{text}'",
            do="give a folder of pictures, calibrate.py:FUNCTION, or the word random",
        )
    paths = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()))
    if not paths:
        raise InputError(f"folder '{text}' holds no pictures", do=f"give {', '.join(sorted(_SUFFIXES))}")
    return paths


def check_number(n_samples: int, name: str, *, with_ranges: bool) -> None:
    """Refuse samples that are too few to judge by, and to set ranges where that is needed.

    Raises:
        InputError: They are.
    """
    least = MIN_SAMPLES + (_LEAST_CALIBRATION if with_ranges else 0)
    if n_samples < least:
        raise InputError(
            f"{n_samples} samples of {name} are too few, {least} are needed",
            where=f"{_LEAST_CALIBRATION} set the ranges, {MIN_SAMPLES} others judge" if with_ranges else None,
            do="give more, of the kind that users will send",
        )


def _picture_input(signature: Signature, text: str) -> TensorSpec:
    listed = ", ".join(f"{spec.name} {spec}" for spec in signature.inputs)
    spec = signature.inputs[0]
    if len(signature.inputs) != 1 or len(spec.axes) != _PICTURE_AXES or not spec.is_float:
        raise UsageError(
            f"'{text}' is a folder of pictures, and the model takes {listed}",
            do="write a function that yields its inputs: --calibrate calibrate.py:samples",
        )
    return spec


def _settings(words: dict[str, Any], spec: TensorSpec, text: str) -> PictureSettings:
    """Read the settings; size and mode may follow from the input's axes."""
    _, channels, height, width = spec.axes
    if "mode" not in words and channels.is_fixed:
        words["mode"] = _MODES.get(channels.size({}), "RGB")
    if not {"size", "shortest_edge"} & words.keys():
        if not (height.is_fixed and width.is_fixed):
            raise UsageError(
                f"pictures of '{text}' have no size: the model takes {spec}", do="--set size=[224,224]"
            )
        words["size"] = [height.size({}), width.size({})]
    try:
        found = msgspec.convert(words, PictureSettings)
    except msgspec.ValidationError as err:
        raise UsageError(f"settings of pictures: {err}") from err
    found.check()
    return found
