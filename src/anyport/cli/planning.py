"""How `anyport plan` lays its figures out for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyport.bundle.disk import size_text
from anyport.cli.options import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.build import BuildCost
    from anyport.build.costs import PartCost
    from anyport.source import WeightFiles

_TYPES: Final = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_MANY: Final = 1e8  # parameters that are counted in billions
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_SHORT: Final = 3  # of so many units the next smaller one is written


def cost_lines(cost: BuildCost) -> list[str]:
    """Return one line for the source, one for each part, and one for each thing that is needed."""
    n_parameters = cost.n_parameters / 1e6
    lines = [
        f"  {'source':<9} {cost.model}, {n_parameters:.2f} M parameters   {cost.source}",
        _read_line(cost),
    ]
    rows = [("part", "parameters", "cases", "in the bundle", "time")]
    rows += [
        (
            part.name,
            f"{part.n_parameters / 1e6:.2f} M",
            str(part.n_cases),
            size_text(part.disk_bytes),
            time_text(part.time_s),
        )
        for part in cost.parts
    ]
    if cost.whole is not None:
        whole = cost.whole
        counts = ("", str(whole.n_requests), size_text(whole.proof_bytes), time_text(whole.time_s))
        rows.append((whole.name, *counts))
    needed = [
        ("bundle", _bundle_text(cost)),
        *((method, f"{size_text(size)} of the bundle") for method, size in cost.variants.items()),
        (
            "disk",
            f"{size_text(cost.disk_bytes)} where the bundle goes; {size_text(cost.free_bytes)} are free",
        ),
        ("memory", _memory_text(cost)),
        ("time", _time_text(cost)),
    ]
    needed += [("NOT HERE", _absent_text(cost.files))] if cost.files and cost.files.absent else []
    lines += [*table(rows).splitlines(), *(f"  {name:<9} {text}" for name, text in needed)]
    lines += streamed_lines(cost)
    lines += [f"  NOT ENOUGH {word}" for word in cost.lacks]
    texts = cost.ways_out(cost.lacks) if cost.lacks else []
    return lines + ([f"  do:       {'; '.join(texts)}"] if texts else [])


def streamed_lines(cost: BuildCost) -> list[str]:
    """Return one line for each part whose weights are never loaded, or need not be, and one for all of it."""
    ways = cost.ways if cost.weights is None else {cost.weights: cost}
    if not ways:
        return []
    parts = zip(*(one.parts for one in ways.values()), strict=True)
    texts = [_streamed_text(dict(zip(ways, same, strict=True))) for same in parts if same[0].stored]
    texts += [_all_text(ways)] if cost.weights is None else []
    return [f"  {'' if place else 'streamed':<9} {text}" for place, text in enumerate(texts)]


def _streamed_text(costs: Mapping[str, PartCost]) -> str:
    """Say what one part needs, in each way."""
    part = next(iter(costs.values()))
    stored = part.stored
    if stored is None:
        return part.name
    kinds = " and ".join(_TYPES.get(word, word) for word in stored.dtypes)
    files = f"{stored.n_files} shards" if stored.n_files > 1 else "1 file"
    peak = _in_each({way: one.export_memory_bytes or 0 for way, one in costs.items()})
    disk = _in_each({way: one.disk_bytes for way, one in costs.items()}, "+")
    n, unit = (part.n_parameters / 1e9, "B") if part.n_parameters >= _MANY else (part.n_parameters / 1e6, "M")
    n_parameters = f"{n:.2f} {unit} {kinds}, {size_text(stored.n_bytes)} in {files}"
    time_s = max(one.time_s for one in costs.values())
    return f"{part.name} {n_parameters}; export peak {peak}; disk {disk}; about {time_text(time_s)}"


def _all_text(ways: Mapping[str, BuildCost]) -> str:
    """Say what builds need that load nothing large."""
    memory = _in_each({way: one.memory_bytes for way, one in ways.items()})
    disk = _in_each({way: one.disk_bytes for way, one in ways.items()}, "+")
    time_s = max(one.time_s for one in ways.values())
    options = " or ".join(f"--weights {way}" for way in ways)
    return f"in all, with {options}: memory {memory}; disk {disk}; about {time_text(time_s)}"


def _in_each(sizes: Mapping[str, int], sign: str = "") -> str:
    """Write a size for each way, or one for all."""
    texts = {way: f"{sign}{size_text(size)}" for way, size in sizes.items()}
    if len({*texts.values()}) == 1:
        return next(iter(texts.values()))
    return " or ".join(f"{text} ({way})" for way, text in texts.items())


def _read_line(cost: BuildCost) -> str:
    if cost.files is None:
        return f"  {'read':<9} what your function reads: it was called, only it knows what it makes"
    verb = "read" if cost.files.is_here else "download"
    names = [*cost.files.sizes, *cost.files.absent]
    files = names[0] if len(names) == 1 else f"{len(names)} files"
    least = "at least " if cost.files.unsized else ""
    return f"  {verb:<9} {least}{size_text(cost.files.size_bytes)}: {files}"


def _absent_text(files: WeightFiles) -> str:
    unknown = f"; {', '.join(files.unsized)} without an index" if files.unsized else ""
    return f"{len(files.absent)} files of weights, which the indexes name: a build needs them{unknown}"


def _bundle_text(cost: BuildCost) -> str:
    weights = size_text(sum(part.weight_bytes for part in cost.parts))
    whole = cost.whole.proof_bytes if cost.whole else 0
    proof = size_text(sum(part.proof_bytes for part in cost.parts) + whole)
    return f"about {size_text(cost.bundle_bytes)}: {weights} of weights, {proof} of proof, and the rest"


def _memory_text(cost: BuildCost) -> str:
    free = "" if cost.free_memory_bytes is None else f"; {size_text(cost.free_memory_bytes)} are free"
    own = "" if cost.weights is None else " of its own"  # without the pages of files that it reads
    return f"about {size_text(cost.memory_bytes)}{own} at the most, in {cost.largest_part}{free}"


def _time_text(cost: BuildCost) -> str:
    speed = f"{cost.speed.float32 / 1e9:.0f} GFLOP/s ({cost.speed.float64 / 1e9:.0f} in float64)"
    more = ", and compression" if cost.variants else ""
    return f"about {time_text(cost.time_s)}{more}   at {speed}, if nothing else runs"


def time_text(time_s: float) -> str:
    """Write a time for people.

    >>> time_text(41), time_text(130), time_text(1300), time_text(9000)
    ('41 s', '2 min 10 s', '22 min', '2 h 30 min')
    """
    whole_s = round(time_s)
    if whole_s < _MINUTE_S:
        return f"{max(whole_s, 1)} s"
    unit_s, word, less_s, less = (
        (_MINUTE_S, "min", 1, "s") if whole_s < _HOUR_S else (_HOUR_S, "h", _MINUTE_S, "min")
    )
    n, rest_s = divmod(whole_s, unit_s)
    if n > _SHORT:
        return f"{round(whole_s / unit_s)} {word}"
    return f"{n} {word} {rest_s // less_s} {less}"
