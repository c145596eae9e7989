"""``anyport verify BUNDLE --checklist``: the release list, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from anyport.cli.describing import step_printer
from anyport.cli.frame import show_json
from anyport.cli.options import SizeType
from anyport.cli.remembering import folder_of
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.report import CheckSettings

_F = TypeVar("_F", bound="Callable[..., Any]")

_OPTIONS: Final = {
    "runs": "--runs",
    "soak_seconds": "--soak-seconds",
    "threads": "--threads",
    "memory_limit_bytes": "--max-memory",
    "provider": "--provider",
}
_FOREIGN: Final = {  # of a comparison, which the list does not do anew
    "inputs": "--input",
    "dims": "--dim",
    "arguments": "--argument",
    "max_cases": "--max-cases",
    "max_case_bytes": "--max-case-bytes",
    "seed": "--seed",
    "rtol": "--rtol",
    "atol": "--atol",
    "mse": "--mse",
    "l2": "--l2",
    "allow": "--allow",
}


def checklist_options(function: _F) -> _F:
    """Add the options of the release list."""
    options = (
        click.option("--checklist", is_flag=True, help="The release list of a bundle, with evidence."),
        click.option("--runs", type=int, help="Of the list, for leaks.  [default: 300]"),
        click.option("--soak-seconds", type=float, help="Of the list: at most so long.  [default: 20]"),
        click.option("--threads", type=click.IntRange(min=1), help="Of the list: of your service."),
        click.option(
            "--max-memory",
            "memory_limit_bytes",
            type=SizeType(),
            help="Of the list: of your service, 512MB.",
        ),
        click.option("--provider", help="Of the list: who should compute.  [default: cpu]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def wants_checklist(chosen: dict[str, Any]) -> bool:
    """Say whether the list is asked for.

    Raises:
        UsageError: It is not, and an option of it is given.
    """
    if chosen["checklist"]:
        return True
    for name, option in _OPTIONS.items():
        if chosen[name] is not None:
            raise UsageError(f"{option} is of the release list", do=f"add --checklist, or leave {option} out")
    return False


def show_checklist(target: Path, chosen: dict[str, Any], *, as_json: bool) -> int:
    """Go through the list and print it; return 1 if a line fails.

    Raises:
        UsageError: The target is no bundle, or an option does not belong to the list.
    """
    if target.suffix == ".onnx" or chosen["against"] or chosen["part"]:
        raise UsageError(
            "--checklist is of a whole bundle", do=f"anyport verify {target.with_suffix('.port')} --checklist"
        )
    for name, option in _FOREIGN.items():
        if chosen[name] not in {None, ()}:
            raise UsageError(
                f"{option} does not apply to --checklist: the list replays the proof as it was recorded",
                do=f"leave {option} out",
            )
    from anyport.bundle import open_bundle
    from anyport.report import release_checklist

    with open_bundle(target) as bundle:
        bundle.check()
        folder = folder_of(target, chosen["weights"])
        found = release_checklist(bundle, _settings(chosen, folder, as_json=as_json))
    if as_json:
        show_json(found.to_json())
    else:
        click.echo(found.text())
    return int(found.failed)


def _settings(chosen: dict[str, Any], weights: Path | None, *, as_json: bool) -> CheckSettings:
    from anyport.report import CheckSettings
    from anyport.runtime import SessionOptions

    session = SessionOptions(
        provider=chosen["provider"] or "cpu",
        n_threads=chosen["threads"],
        memory_limit_bytes=chosen["memory_limit_bytes"],
        libraries=tuple(chosen["libraries"]),
        weights_folder=weights,
    )
    given = {"n_runs": chosen["runs"], "soak_s": chosen["soak_seconds"], "variant": chosen["variant"]}
    words = {name: value for name, value in given.items() if value is not None}
    return CheckSettings(session=session, progress=step_printer(as_json=as_json), **words)
