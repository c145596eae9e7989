"""The words of ``anyport reweight`` as the build room takes them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyport.cli.describing import require_build, source_date_epoch
from anyport.errors import UsageError, require

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import ReweightSettings


@dataclass(frozen=True, slots=True)
class ReweightWords:
    """What the user typed; ``None`` is absent."""

    bundle: Path
    checkpoint: Path
    out: Path
    against: str | None
    version: str | None
    max_cases: int | None
    seed: int | None
    libraries: tuple[Path, ...]
    force: bool
    as_json: bool


def settings_of(words: ReweightWords) -> ReweightSettings:
    """Read how it is done; what is absent keeps its default.

    Raises:
        UsageError: It says how to prove, and not against what.
        MissingExtraError: The packages for .onnx files, or with ``--against`` PyTorch, are not installed.
    """
    proving = {"--library": words.libraries or None, "--seed": words.seed, "--max-cases": words.max_cases}
    idle = [option for option, value in proving.items() if value is not None]
    if words.against is None and idle:
        raise UsageError(
            f"{idle[0]} says how to prove the new weights, and nothing proves them",
            do="give --against SOURCE, or leave it out",
        )
    for package in ("onnx", "onnx_ir"):
        require(package, extra="optimize", step="swapping weights")
    if words.against is not None:
        require_build()
    from anyport.build import ReweightSettings

    names = ("against", "version", "max_cases", "seed")
    given: dict[str, Any] = {name: getattr(words, name) for name in names}
    return ReweightSettings(
        force=words.force,
        libraries=words.libraries,
        source_date_epoch=source_date_epoch(),
        command=("anyport", *sys.argv[1:]),
        **{name: value for name, value in given.items() if value is not None},
    )
