"""The words that describe a model, the same for ``build`` and ``export``, as options and in anyport.toml."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from anyport.cli.options import SizeType, force_option, json_option, library_option
from anyport.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from anyport.build import BuildPlan, BuildSettings

_F = TypeVar("_F", bound="Callable[..., Any]")

_FACTS: Final = ("name", "version", "task", "author", "license", "trained_at", "description")


_ALLOWED: Final = ("failed", "inconclusive")


def checking_options(function: _F) -> _F:
    """Add the options that say how a comparison is done."""
    return _with_checking(function, _ALLOWED, "Go on after such a verdict; the result says so.")


def building_options(function: _F) -> _F:
    """Add the options that say how a comparison is done, and whether the whole task has one."""
    return _with_checking(
        function,
        (*_ALLOWED, "unproven-task"),
        "Go on after such a verdict, or without it; the result says so.",
    )


def _with_checking(function: _F, allowed: Sequence[str], help_text: str) -> _F:
    options = (
        click.option(
            "--max-cases",
            type=int,
            help="At most this many cases, or what many inputs need.  [default: 40; 16 with --weights]",
        ),
        click.option(
            "--max-case-bytes",
            type=SizeType(),
            help="Largest inputs of one case.  [default: 64MiB; 256KiB with --weights]",
        ),
        click.option("--seed", type=int, help="Of the random cases.  [default: 0]"),
        click.option("--rtol", type=float, help="Your own limit: relative error."),
        click.option("--atol", type=float, help="Your own limit: absolute error."),
        click.option("--mse", type=float, help="Your own limit: mean squared error."),
        click.option("--l2", type=float, help="Your own limit: length of the error."),
        click.option(
            "--allow",
            multiple=True,
            type=click.Choice(allowed),
            help=help_text,
        ),
        library_option,
        json_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


def describing_options(function: _F) -> _F:
    """Add the options that describe a model and its export, and say where that goes."""
    options = (
        click.option(
            "-o", "--out", "out", required=True, type=click.Path(path_type=Path), help="Where it goes."
        ),
        model_options,
        click.option("--dry-run", is_flag=True, help="Show the plan, do nothing."),
        force_option,
        building_options,
    )
    for option in reversed(options):
        function = option(function)
    return function


def model_options(function: _F) -> _F:
    """Add the options that describe a model."""
    options = (
        click.option(
            "--input", "inputs", multiple=True, metavar="NAME=TENSOR", help="x=float32[batch,3,h,w]"
        ),
        click.option(
            "--output", "outputs", multiple=True, metavar="NAME=TENSOR", help="y=float32[batch,1000]"
        ),
        click.option("--dim", "dims", multiple=True, metavar="NAME=SIZES", help="batch=1..64, h=64..1024:32"),
        click.option(
            "--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="Of forward(), fixed."
        ),
        click.option(
            "--lora",
            multiple=True,
            metavar="FILE[:SCALE]",
            help="A LoRA (.safetensors) to merge.",
        ),
        click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the task."),
        click.option("--cases", metavar="FILE.py:FUNCTION", help="Your own inputs, for the comparison."),
        *(click.option(f"--{fact.replace('_', '-')}", fact, help=f"As [model] {fact}.") for fact in _FACTS),
        click.option("--opset", type=int, help="ONNX opset to write, 13..23.  [default: 20]"),
        click.option("--fix", multiple=True, metavar="NAME=SIZE,…", help="Make axes static: batch=1,h=224"),
        click.option(
            "--custom-op", "custom_ops", metavar="FILE.py:TABLE", help="Your own operators in ONNX."
        ),
        click.option(
            "--storage",
            type=click.Choice(["as-is", "float32"]),
            help="float32: 16-bit weights are widened.  [default: as-is]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def variant_options(function: _F) -> _F:
    """Add the options that say which variants a bundle has; those of `describing_options` stand below."""
    options = (
        click.option(
            "--weights",
            type=click.Choice(["copy", "reference"]),
            help="Never load them: stream a copy into the bundle, or refer to the checkpoint.",
        ),
        click.option("--simplify", metavar="auto|TOOLS", help="Fewer nodes, proven equal: auto, onnxslim, …"),
        click.option(
            "--attention",
            type=click.Choice(["fused", "plain"]),
            help="fused: a variant for ONNX Runtime, less memory.",
        ),
        click.option(
            "--compress", multiple=True, metavar="METHOD", help="A variant: int8, int8-dynamic, fp16"
        ),
        click.option(
            "--prefer", type=click.Choice(["size", "speed"]), help="size: slower ones are kept too."
        ),
        click.option(
            "--calibrate", metavar="SAMPLES", help="calibrate.py:samples, a folder of pictures, random"
        ),
        click.option("--calibrate-texts", metavar="FILE", help="One text on each line, for those pictures."),
        click.option("--evaluate", metavar="FILE.py:FUNCTION", help="Your metric: accuracy(run) -> float."),
        click.option(
            "--metric", "metrics", multiple=True, metavar="OUTPUT=METRIC", help="top-1, cosine:0.99, psnr"
        ),
        click.option("--max-drop", type=float, help="Of your metric.  [default: 0.005]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def plan_from(target: str, chosen: dict[str, Any]) -> BuildPlan:
    """Lay the options over the target's anyport.toml.

    Raises:
        MissingExtraError: The packages for exporting are not installed.
        UsageError: A word is not understood.
    """
    require_build()
    from anyport.build import BuildPlan, describe, locate
    from anyport.build.description import toml_values
    from anyport.build.plan import STREAMED_CASES
    from anyport.tensors import pairs

    found, folder = locate(target)
    words: dict[str, Any] = _words_of(found) if found else {"model": {"source": target}}
    words["model"] |= {fact: chosen[fact] for fact in _FACTS if chosen[fact] is not None}
    if chosen["lora"]:
        words["model"]["lora"] = list(chosen["lora"])
    for table, option in (("inputs", "--input"), ("outputs", "--output"), ("dims", "--dim")):
        words[table] = words.get(table, {}) | pairs(chosen[table], option)
    for table, option in (("arguments", "--argument"), ("settings", "--set")):
        words[table] = words.get(table, {}) | toml_values(chosen[table], option)
    if chosen["cases"] is not None:
        words["cases"] = {"function": chosen["cases"]}
    words["build"] = words.get("build", {}) | _build_words(chosen, words.get("build", {}))
    _lay_data(words, chosen)
    output = Path(os.path.abspath(chosen["out"]))  # noqa: PTH100 -- resolve() would follow a link
    description = describe(words, "the description")
    defaults = STREAMED_CASES if description.build.weights else {}
    return BuildPlan(description, folder, output, settings_from(chosen, defaults))


def _build_words(chosen: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """Return what the options say of ``[build]``; ``--fix`` adds to what is written."""
    names = ("opset", "custom_ops", "storage", "simplify", "prefer", "attention", "weights")
    words = {name: chosen[name] for name in names if chosen.get(name) is not None}
    if chosen["fix"]:
        words["fix"] = written.get("fix", {}) | read_fixes(chosen["fix"])
    if chosen.get("compress"):
        words["compress"] = list(chosen["compress"])
    return words


def _lay_data(words: dict[str, Any], chosen: dict[str, Any]) -> None:
    """Lay the options over ``[calibrate]``, ``[evaluate]`` and ``[metrics]``."""
    from anyport.tensors import pairs

    given = {"samples": chosen.get("calibrate"), "texts": chosen.get("calibrate_texts")}
    given = {name: value for name, value in given.items() if value is not None}
    if given and "samples" not in words.get("calibrate", {}) | given:
        raise UsageError("--calibrate-texts go with pictures", do="name their folder: --calibrate photos/")
    if given:
        words["calibrate"] = words.get("calibrate", {}) | given
    if chosen.get("metrics"):
        words["metrics"] = words.get("metrics", {}) | pairs(chosen["metrics"], "--metric")
    given = {"function": chosen.get("evaluate"), "max_drop": chosen.get("max_drop")}
    given = {name: value for name, value in given.items() if value is not None}
    if given and "function" not in words.get("evaluate", {}) | given:
        raise UsageError("--max-drop is of your own metric", do="name it: --evaluate evaluate.py:accuracy")
    if given:
        words["evaluate"] = words.get("evaluate", {}) | given


def _words_of(description: Any) -> dict[str, Any]:  # noqa: ANN401 -- a Description, imported late
    import msgspec

    words: dict[str, Any] = msgspec.to_builtins(description)
    words["model"] = {key: value for key, value in words["model"].items() if value is not None}
    return {name: value for name, value in words.items() if value is not None}


def settings_from(chosen: dict[str, Any], defaults: Mapping[str, int] | None = None) -> BuildSettings:
    """Read the options of a comparison; what is absent keeps its default."""
    from anyport.build import BuildSettings
    from anyport.verify import Gates

    names = ("max_cases", "max_case_bytes", "seed", "force")
    given = dict(defaults or {}) | {name: chosen[name] for name in names if chosen.get(name) is not None}
    return BuildSettings(
        gates=Gates(*(chosen[name] for name in ("rtol", "atol", "mse", "l2"))),
        allow=frozenset(chosen["allow"]),
        source_date_epoch=source_date_epoch(),
        command=("anyport", *sys.argv[1:]),
        libraries=tuple(chosen.get("libraries", ())),
        **given,
    )


def read_fixes(options: Iterable[str]) -> dict[str, int]:
    """Read ``--fix`` options.

    >>> read_fixes(["batch=1,height=224", "width=320"])
    {'batch': 1, 'height': 224, 'width': 320}

    Raises:
        UsageError: One is no ``NAME=SIZE``, or a name comes twice.
    """
    from anyport.tensors import pairs

    texts = pairs((text for option in options for text in option.split(",")), "--fix")
    for name, text in texts.items():
        if not (text.isascii() and text.isdigit()):
            raise UsageError(f"--fix {name}={text} is no size", do=f"write --fix {name}=1")
    return {name: int(text) for name, text in texts.items()}


def source_date_epoch() -> int | None:
    """Return the seconds since 1970 that stand for the time of creation; ``None`` is now.

    Raises:
        UsageError: ``SOURCE_DATE_EPOCH`` is no number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None or text.isdigit():
        return None if text is None else int(text)
    raise UsageError(f"SOURCE_DATE_EPOCH is '{text}', not a number of seconds")


def require_build() -> None:
    """Check that the packages for exporting are there.

    Raises:
        MissingExtraError: One is not.
    """
    import importlib.util

    for package in ("torch", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra="build", step="exporting a model")


def step_printer(*, as_json: bool) -> Callable[[str, str], None]:
    """Return what prints a line as each step ends; ``--json`` keeps standard output for the answer."""

    def show(step: str, text: str) -> None:
        click.echo(f"  {step:<9} {text}", err=as_json)

    return show
