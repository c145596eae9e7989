"""`BuildPlan`: what a build will do, printable before it does anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.build.description import FILE_NAME, NO_SIMPLIFIER, Description, read_description, signature_of
from anyport.errors import UsageError
from anyport.source import SourceRequest
from anyport.verify import Gates

if TYPE_CHECKING:
    from collections.abc import Mapping

_MORE: Final = ", more where many inputs need them"
_STORAGES: Final = {"as-is": "", "float32": ", weights of 16 bits widened to float32"}
_WEIGHTS: Final = {
    "copy": "streamed into the bundle, never loaded",
    "reference": "stay in the checkpoint, which the bundle refers to",
}
# where weights are streamed, each case reads all of them again, twice
STREAMED_CASES: Final[Mapping[str, int]] = {"max_cases": 16, "max_case_bytes": 256 << 10}
UNPROVEN_TASK: Final = "unproven-task"
ALLOWED: Final = ("failed", "inconclusive", UNPROVEN_TASK)  # what a user may allow by name


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How a build is done, apart from the model itself.

    Attributes:
        max_case_bytes: The largest inputs of one case of the verification.
        max_cases: How many cases a part has at most; one more for each input above the eighth, and never
            fewer than a verdict needs: three, and one for each input.
        seed: Of the random cases.
        gates: The user's own limits, beside the derived tolerance.
        allow: Verdicts that do not stop the build: ``inconclusive``, ``failed``; and ``unproven-task``, which
            leaves the original program of a whole task unasked. The manifest says so.
        force: Replace an existing output.
        source_date_epoch: Seconds since 1970 that stand for the time of creation; ``None`` is now.
        command: The words the user typed, for the provenance.
        libraries: Shared libraries with operators of the user's own, for the sessions of the comparison.
        show_command: What shows more of a failed verdict; it ends the message.
    """

    max_case_bytes: int = 64 << 20
    max_cases: int = 40
    seed: int = 0
    gates: Gates = field(default_factory=Gates)
    allow: frozenset[str] = frozenset()
    force: bool = False
    source_date_epoch: int | None = None
    command: tuple[str, ...] = ()
    libraries: tuple[Path, ...] = ()
    show_command: str = "anyport build … --allow failed"

    def __post_init__(self) -> None:
        """Refuse what cannot be done, before anything is loaded."""
        if self.max_cases < 1 or self.max_case_bytes < 1:
            raise UsageError("max_cases and max_case_bytes must be 1 or more")
        for word in self.allow:
            if word not in ALLOWED:
                raise UsageError(f"--allow '{word}' is not one of {', '.join(ALLOWED)}")


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """A description, the folder its files are in, where the result goes, and how."""

    description: Description
    folder: Path
    output: Path
    settings: BuildSettings

    def __str__(self) -> str:
        """Return one line per step."""
        model, made = self.description.model, self.description.build
        case_bytes = self.settings.max_case_bytes
        size = f"{case_bytes >> 20} MiB" if case_bytes >= 1 << 20 else f"{case_bytes / 1024:.4g} KiB"
        lines = [
            f"source    {model.source}",
            *(f"lora      {text}" for text in model.adapters),
            f"export    opset {made.opset}" + _STORAGES[made.storage],
            *(f"          input  {name} = {text}" for name, text in self.description.inputs.items()),
            *(f"          output {name} = {text}" for name, text in self.description.outputs.items()),
            *(f"          dim    {name} = {text}" for name, text in self.description.dims.items()),
            *(f"          fix    {name} = {size}" for name, size in made.fix.items()),
            *(f"          custom operators of {table}" for table in [made.custom_ops] if table),
            f"verify    at most {self.settings.max_cases} cases of {size}{_MORE}",
            *(f"simplify  {made.simplify}" for _ in [made.simplify] if made.simplify != NO_SIMPLIFIER),
            *(f"attention {made.attention}" for _ in [made.attention] if made.attention),
            *(f"weights   {_WEIGHTS[word]}" for word in [made.weights] if word),
            *(f"compress  {method}" for method in made.compress),
            f"write     {self.output.name}"
            + ("  (an existing one is replaced)" if self.settings.force else ""),
        ]
        return "\n".join(lines)

    @property
    def request(self) -> SourceRequest:
        """The source, as the source room takes it."""
        cases = self.description.cases
        return SourceRequest(
            text=self.description.model.source,
            folder=self.folder,
            signature=signature_of(self.description),
            arguments=self.description.arguments,
            cases=cases.function if cases else None,
            adapters=self.description.model.adapters,
            streamed=self.description.build.weights is not None,
        )


def locate(target: str) -> tuple[Description | None, Path]:
    """Find what a target means: a project folder or its ``anyport.toml``, or a source.

    Returns:
        The description (``None`` for a source), and the folder that relative files are in.

    Raises:
        UsageError: The ``anyport.toml`` is wrong, or an existing folder is neither project nor checkpoint.
    """
    path = Path(target)
    if path.is_dir() and (path / FILE_NAME).is_file():
        return read_description(path / FILE_NAME), path
    if path.is_file() and path.suffix == ".toml":
        return read_description(path), path.parent
    if path.is_dir() and not any((path / name).is_file() for name in ("config.json", "model_index.json")):
        raise UsageError(
            f"'{target}' has neither an {FILE_NAME} nor the config.json of a checkpoint",
            do=f"write {target.rstrip('/')}/{FILE_NAME}; docs/build.md shows one",
        )
    return None, Path()
