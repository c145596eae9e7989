"""When, with what and how a bundle was made, without a word about the machine's own paths."""

from __future__ import annotations

import platform
import shlex
from datetime import UTC, datetime
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Final

from anyport.bench.machine import package_versions
from anyport.bundle import Provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGES: Final = (
    "anyport",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "torch",
    "transformers",
)


def provenance_of(source: str, words: Sequence[str]) -> Provenance:
    """Return where a bundle came from.

    Args:
        source: The source's public name.
        words: The command; of each path only the last part is kept.
    """
    return Provenance(
        source=source,
        command=shlex.join(public_word(word) for word in words),
        packages=build_packages(),
        machine=platform.machine(),
        python=platform.python_version(),
    )


def build_packages() -> dict[str, str]:
    """Return package -> version for what takes part in a build."""
    return package_versions(_PACKAGES)


def public_word(word: str) -> str:
    """Shorten the paths of a command's words to their last part.

    >>> public_word("--out=/home/me/digits.port")
    '--out=digits.port'
    >>> public_word("x=float32[batch, 3, height//8]")
    'x=float32[batch, 3, height//8]'
    """
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if "[" in value or ("/" not in value and "\\" not in value):
        return word
    place, colon, function = (
        value.rpartition(":") if value.rpartition(":")[2].isidentifier() else (value, "", "")
    )
    name = PureWindowsPath(place).name  # it knows both kinds of slashes
    return f"{option}{equals}{name or '.'}{colon}{function}"


def created_at(epoch_s: int | None) -> str:
    """Return the time of creation, ``2026-11-20T10:00:00Z``: now, or ``SOURCE_DATE_EPOCH``."""
    moment = datetime.now(UTC) if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
