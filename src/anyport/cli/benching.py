"""The words of ``anyport bench``, read once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from anyport.cli.remembering import folder_of, remember_weights
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from anyport.bench import BenchReport, BenchSettings, Contest


class NumbersType(click.ParamType[tuple[int, ...]]):
    """Whole numbers, such as ``1,2``."""

    name = "N,N…"

    def convert(
        self,
        value: Any,  # noqa: ANN401 -- click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, ...]:
        """Read them."""
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if not all(word.strip().isascii() and word.strip().isdigit() for word in words):
            self.fail(f"'{value}' is no list of numbers: write 1,2", param, ctx)
        return tuple(int(word) for word in words)


class SizesType(click.ParamType[dict[str, int]]):
    """Sizes of named axes, such as ``batch=8,sequence=128``."""

    name = "NAME=N,…"

    def convert(
        self,
        value: Any,  # noqa: ANN401 -- click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> dict[str, int]:
        """Read them."""
        if isinstance(value, dict):
            return value
        sizes: dict[str, int] = {}
        for word in str(value).split(","):
            name, _, size = (text.strip() for text in word.partition("="))
            if not name or not (size.isascii() and size.isdigit()):
                self.fail(f"'{word}' is no size: write batch=8,sequence=128", param, ctx)
            if name in sizes:
                self.fail(f"'{name}' comes twice", param, ctx)
            sizes[name] = int(size)
        return sizes


def settings_from(chosen: dict[str, Any]) -> BenchSettings:
    """Read how much is measured; what is absent keeps its default."""
    from anyport.bench import BenchSettings

    words = {"threads": "threads", "batches": "batches", "seconds": "budget_s", "seed": "seed"}
    return BenchSettings(**{name: chosen[word] for word, name in words.items() if chosen[word] is not None})


def contests_from(targets: Sequence[Path], chosen: dict[str, Any], stack: ExitStack) -> list[Contest]:
    """Open the targets, and PyTorch if it is asked for.

    Raises:
        AnyportError: A target, or the source, is not there or does not fit.
    """
    from anyport.bench import Selection, find_contests
    from anyport.tensors import pairs

    sizes: dict[str, int] = {}
    for words in chosen["sizes"]:
        twice = sorted(sizes.keys() & words.keys())
        if twice:
            raise UsageError(f"--size names '{twice[0]}' twice")
        sizes |= words
    selection = Selection(
        variants=chosen["variants"],
        part=chosen["part"],
        sizes=sizes,
        inputs=pairs(chosen["inputs"], "--input"),
        dims=pairs(chosen["dims"], "--dim"),
        weights=_weights_of(targets, chosen["weights"]),
    )
    contests = find_contests(targets, selection, stack)
    if chosen["against"] is None:
        return contests
    from anyport.cli.describing import require_build

    require_build()
    from anyport.build.opponent import torch_candidate

    return [c.against(torch_candidate(chosen["against"], targets[0], c)) for c in contests]


def _weights_of(targets: Sequence[Path], given: Path | None) -> Path | None:
    """Return the checkpoint of the targets that refer to one."""
    if given is not None and len(targets) == 1:
        remember_weights(targets[0], folder_of(targets[0], given))
    found = (folder_of(target, None) for target in targets)
    return given or next((folder for folder in found if folder is not None), None)


def report_writer(out: Path | None, *, force: bool) -> Callable[[BenchReport], None]:
    """Return what writes the report; what could stop it is refused now, before anything is measured.

    Raises:
        UsageError: The output exists, or has a name of no known format.
        MissingExtraError: A plot needs matplotlib.
    """
    if out is None:
        return lambda _report: None
    from anyport.bench import check_plot

    if out.suffix != ".json":
        check_plot(out)
    if out.exists() and not force:
        raise UsageError(f"'{out.name}' exists already", do="give another name, or --force")
    return lambda report: _write(report, out, force=force)


def _write(report: BenchReport, out: Path, *, force: bool) -> None:
    from anyport.bench import draw
    from anyport.bundle import staged_file

    with staged_file(out, force=force) as path:
        if out.suffix == ".json":
            path.write_text(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")
        else:
            draw(report, path, out.suffix[1:])
