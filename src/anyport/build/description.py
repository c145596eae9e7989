"""`Description`: what the user says about a model, in ``anyport.toml`` or as options; the same words."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from anyport.bundle import convert_tree, is_version
from anyport.errors import BundleError, UsageError
from anyport.graph.convert import DEFAULT_OPSET, check_opset
from anyport.graph.storing import Storage
from anyport.tensors import Dim, Signature, TensorSpec, dim, pairs, tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

FILE_NAME: Final = "anyport.toml"
NO_SIMPLIFIER: Final = "none"
_MAX_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class ModelTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[model]``: what it is and where it comes from.

    Attributes:
        source: ``file.py:function``, ``package.module:function``, or a Hugging Face id or folder.
        name: Of the bundle; the source's own name when left out.
        version: A semantic version.
        task: What the bundle offers; without one, tensors in and tensors out.
        description: One sentence for the model card.
        author: Who answers for the model.
        license: An SPDX identifier.
        trained_at: A date, ``2026-11-20``.
        lora: Adapters that are merged into a checkpoint: ``FILE.safetensors`` or ``FILE.safetensors:SCALE``.
    """

    source: str
    name: str | None = None
    version: str = "0.1.0"
    task: str | None = None
    description: str = ""
    author: str = ""
    license: str = ""
    trained_at: str = ""
    lora: str | list[str] = []

    @property
    def adapters(self) -> tuple[str, ...]:
        """Every LoRA, in the order in which they are merged."""
        return (self.lora,) if isinstance(self.lora, str) else tuple(self.lora)


class CasesTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[cases]``: the user's own inputs; ``function`` is ``file.py:function``."""

    function: str


class BuildTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[build]``: what is made of the model.

    Attributes:
        opset: The ONNX opset that is written.
        fix: Named axes that become numbers.
        custom_ops: ``table.py:OPS``, translations of the user's own operators.
        simplify: ``auto`` tries every simplifier, ``onnxslim,onnxsim`` these, ``none`` no one.
        compress: Methods, each of which makes a variant: ``int8``, ``int8-dynamic``, ``fp16`` ….
        prefer: What a compressed variant is for: one that is not faster is refused, unless it is ``size``.
        attention: ``fused`` adds a variant for ONNX Runtime where that is faster here, ``plain`` does not;
            left out, the recipe decides.
        storage: ``as-is`` keeps the 16 bits of a checkpoint in bfloat16 or float16, ``float32`` widens them.
        weights: Never loaded, but streamed from the checkpoint: ``copy`` into the bundle, or left there and
            referred to: ``reference``. Left out, the model is loaded.
    """

    opset: int = DEFAULT_OPSET
    fix: dict[str, int] = {}
    custom_ops: str | None = None
    simplify: str = NO_SIMPLIFIER
    compress: list[str] = []
    prefer: Literal["size", "speed"] = "speed"
    attention: Literal["fused", "plain"] | None = None
    storage: Storage = "as-is"
    weights: Literal["copy", "reference"] | None = None


class CalibrateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[calibrate]``: the inputs that compression measures on.

    Attributes:
        samples: ``calibrate.py:samples``, a folder of pictures, or ``random``.
        texts: A file with one text on each line, cycled over the pictures: for a task that looks at both.
    """

    samples: str
    texts: str | None = None


class EvaluateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[evaluate]``: the user's own metric.

    Attributes:
        function: ``evaluate.py:accuracy``; it is given ``run(feeds) -> outputs``, and larger is better.
        max_drop: How much less than the uncompressed model's a variant's value may be.
    """

    function: str
    max_drop: Annotated[float, msgspec.Meta(ge=0)] = 0.005


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a user says about a model; see the attributes of the tables.

    Attributes:
        model: ``[model]``.
        inputs: ``[inputs]``: name -> ``float32[batch, 3, height, width]``.
        outputs: ``[outputs]``: name -> notation.
        dims: ``[dims]``: name -> ``1..64`` or ``64..1024:32``.
        arguments: ``[arguments]``: other arguments of ``forward``, fixed in the graph.
        cases: ``[cases]``.
        settings: ``[settings]`` of the task.
        build: ``[build]``.
        calibrate: ``[calibrate]``.
        evaluate: ``[evaluate]``.
        metrics: ``[metrics]``: output -> ``top-1``, ``cosine:0.99`` …, where the choice by name is wrong.
    """

    model: ModelTable
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    dims: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    cases: CasesTable | None = None
    settings: dict[str, Any] = {}
    build: BuildTable = BuildTable()
    calibrate: CalibrateTable | None = None
    evaluate: EvaluateTable | None = None
    metrics: dict[str, str] = {}


def read_description(path: Path) -> Description:
    """Read an ``anyport.toml``.

    Raises:
        UsageError: It is not there, no TOML, or has an unknown or wrong key.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path.name} is larger than {_MAX_BYTES} bytes")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(f"{path.name} cannot be read: {err.strerror}", where=str(path)) from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"{path.name} is no TOML: {err}") from err
    return describe(content, path.name)


def describe(content: Mapping[str, Any], what: str) -> Description:
    """Turn nested dicts into a `Description` and check what its types cannot.

    Raises:
        UsageError: A key is unknown (with the nearest known one), or a value is not understood.
    """
    try:
        description = convert_tree(_with_dates_as_text(content), Description, what)
    except BundleError as err:
        raise UsageError(err.what, where=err.where) from err
    model = description.model
    if model.name is not None and not _NAME.fullmatch(model.name):
        raise UsageError(f"name '{model.name}' is not 1 to 64 letters, digits, '.', '_' and '-'")
    if not is_version(model.version):
        raise UsageError(f"version '{model.version}' is no semantic version", do="write it as 1.0.0")
    if model.trained_at and not _DATE.fullmatch(model.trained_at):
        raise UsageError(f"trained_at '{model.trained_at}' is no date", do="write it as 2026-11-20")
    check_opset(description.build.opset)
    signature_of(description)
    return description


def _with_dates_as_text(value: Any) -> Any:  # noqa: ANN401 -- TOML has any type
    if isinstance(value, dict):
        return {key: _with_dates_as_text(item) for key, item in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else value


def signature_of(description: Description) -> Signature | None:
    """Return the declared inputs and outputs; ``None`` if neither is declared.

    Raises:
        UsageError: A notation is not understood, or an axis has no dim, or a dim no axis.
    """
    if not description.inputs and not description.outputs:
        return None
    inputs = tuple(tensor(name, text) for name, text in description.inputs.items())
    outputs = tuple(tensor(name, text) for name, text in description.outputs.items())
    dims = {name: dim(name, text) for name, text in description.dims.items()}
    _check_dims(inputs, dims)
    both = {spec.name for spec in inputs} & {spec.name for spec in outputs}
    if both:
        raise UsageError(f"'{min(both)}' is both an input and an output", do="give the output another name")
    return Signature(inputs, outputs, dims)


def _check_dims(inputs: Sequence[TensorSpec], dims: Mapping[str, Dim]) -> None:
    used: set[str] = set()
    plain = {name for spec in inputs for name in spec.dynamic_axes().values()}
    for spec in inputs:
        for axis in spec.axes:
            if axis.name is None and (alone := sorted(axis.names - plain)):
                raise UsageError(
                    f"axis '{axis}' of input '{spec.name}' is computed from '{alone[0]}', which is no axis "
                    "of an input by itself"
                )
            if axis.name is not None and axis.name not in dims:
                raise UsageError(
                    f"axis '{axis.name}' of input '{spec.name}' has no dim",
                    do=f'say which sizes it may have: {axis.name} = "1..64" under [dims], '
                    f"or --dim {axis.name}=1..64",
                )
            used |= axis.names
    unused = sorted(set(dims) - used)
    if unused:
        raise UsageError(f"dim '{unused[0]}' is not an axis of any input")


def laid_over(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of the user; of a table, what the user does not name stays.

    >>> laid_over({"size": [8, 8], "picture": {"merge": 2, "patch": 14}}, {"picture": {"patch": 16}})
    {'size': [8, 8], 'picture': {'merge': 2, 'patch': 16}}
    """
    merged = dict(own)
    for name, value in given.items():
        are_tables = isinstance(value, dict) and isinstance(own.get(name), dict)
        merged[name] = laid_over(own[name], value) if are_tables else value
    return merged


def toml_values(options: Iterable[str], option: str) -> dict[str, Any]:
    """Read ``NAME=VALUE`` options whose values are TOML, or else plain text.

    >>> toml_values(["size=[8, 8]", "mode=L"], "--set")
    {'size': [8, 8], 'mode': 'L'}
    """
    values: dict[str, Any] = {}
    for name, text in pairs(options, option).items():
        try:
            found = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            found = {}
        values[name] = found["value"] if len(found) == 1 else text
    return values
