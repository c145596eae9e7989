"""`Adapter`: a module called with declared tensors by position, answering declared tensors in order."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from anyport.errors import RefusedModelError, SourceError, did_you_mean
from anyport.source.lines import where_is

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.recipe import Part

PREFIX: Final = "module."  # what the adapter puts before the names of the module's weights


class Adapter(nn.Module):
    """The module of a part behind its signature.

    ``forward`` takes the declared inputs by position and returns a tuple of the declared outputs, so
    that dicts, dataclasses, fixed arguments and keyword-only parameters are gone before the export.
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.module = part.module
        self._by_name = takes_by_name(part)
        self._inputs = tuple(spec.name for spec in part.signature.inputs)
        self._outputs = tuple(spec.name for spec in part.signature.outputs)
        self._outputs_in_order = part.outputs_in_order
        self._arguments = dict(part.arguments)
        self.training = part.module.training

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the declared outputs, in order."""
        if self._by_name:
            answer = self.module(**dict(zip(self._inputs, tensors, strict=True)), **self._arguments)
        else:
            answer = self.module(*tensors, **self._arguments)
        if self._outputs_in_order:
            return outputs_in_order(answer, self._outputs)
        return select_outputs(answer, self._outputs)


def takes_by_name(part: Part) -> bool:
    """Say whether the inputs are parameters of ``forward``, or given by position.

    Raises:
        SourceError: Some names are parameters and others are not, or required ones are missing.
        RefusedModelError: A left out string or flag would choose one branch silently.
    """
    module = part.module
    parameters = dict(inspect.signature(module.forward).parameters)
    kinds = {p.kind for p in parameters.values()}
    names = [spec.name for spec in part.signature.inputs]
    known = [name for name in names if name in parameters]
    by_name = bool(known)
    open_ended = inspect.Parameter.VAR_KEYWORD in kinds
    unknown = [n for n in (*(names if by_name else ()), *part.arguments) if n not in parameters]
    if unknown and not open_ended:
        raise SourceError(
            f"forward() has no parameter '{unknown[0]}'{did_you_mean(unknown[0], parameters)}",
            where=where_is(module),
        )
    given = set(names) if by_name else set(list(parameters)[: len(names)])
    _check_left_out(module, parameters, given | set(part.arguments))
    return by_name


def _check_left_out(module: nn.Module, parameters: Mapping[str, inspect.Parameter], given: set[str]) -> None:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for name, parameter in parameters.items():
        if name in given or parameter.kind not in named:
            continue
        if parameter.default is inspect.Parameter.empty:
            raise SourceError(
                f"forward() needs '{name}', which is neither an input nor an argument",
                where=where_is(module),
                do=f"declare it under [inputs], or fix it under [arguments]: {name} = …",
            )
        if isinstance(parameter.default, str | bool):
            raise RefusedModelError(
                f"forward() has the option {name}={parameter.default!r}, and the graph would hold that "
                "one branch only",
                where=where_is(module),
                do=f"say which you want under [arguments] (--argument on the command line): "
                f"{name} = {_toml(parameter.default)}",
            )


def _toml(value: str | bool) -> str:  # noqa: FBT001 -- any value of TOML
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def select_outputs(answer: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """Return the tensors of an answer under the declared names, in that order.

    A dict (or dataclass) is looked up by key; what lies deeper is called ``key.0`` or ``key.inner``.
    A tensor, tuple or list is named by position and must have as many tensors as there are names.

    Raises:
        SourceError: A name is not there, or the counts differ.
    """
    flat = flatten_output(answer)
    if all(key.isdigit() for key in flat):
        if len(flat) != len(names):
            raise SourceError(
                f"the model returns {len(flat)} tensors, {len(names)} outputs are declared: "
                + ", ".join(names)
            )
        return tuple(flat.values())
    for name in names:
        if name not in flat:
            raise SourceError(f"the model returns no output '{name}'{did_you_mean(name, flat)}")
    return tuple(flat[name] for name in names)


def outputs_in_order(answer: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """Return the tensors of an answer: by key if all names are keys, else in their own order.

    Raises:
        SourceError: There are more or fewer than names.
    """
    flat = flatten_output(answer)
    return select_outputs(flat if set(names) <= set(flat) else tuple(flat.values()), names)


def flatten_output(answer: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return path -> tensor for whatever a module returns; ``None`` is left out.

    >>> import torch
    >>> list(flatten_output({"a": torch.zeros(1), "b": (torch.zeros(1), None, torch.zeros(1))}))
    ['a', 'b.0', 'b.1']

    Raises:
        SourceError: It holds something that is no tensor.
    """
    if isinstance(answer, Tensor):
        return {prefix or "0": answer}
    if answer is None:
        return {}
    if isinstance(answer, tuple | list) and not hasattr(answer, "_fields"):
        present = [item for item in answer if item is not None]
        children = {str(i): item for i, item in enumerate(present)}
    elif hasattr(answer, "items"):
        children = {str(key): item for key, item in answer.items()}
    elif hasattr(answer, "_asdict"):
        children = dict(answer._asdict())
    elif is_dataclass(answer):
        children = {f.name: getattr(answer, f.name) for f in fields(answer)}
    else:
        raise SourceError(
            f"the model returns a {type(answer).__name__} at '{prefix or 'output'}', not a tensor"
        )
    flat: dict[str, Tensor] = {}
    for key, item in children.items():
        flat |= flatten_output(item, f"{prefix}.{key}" if prefix else key)
    return flat


def check_eval_mode(module: nn.Module) -> None:
    """Refuse a module that would answer as in training.

    Raises:
        RefusedModelError: It, or a module inside it, is in training mode.
    """
    training = [(name, child) for name, child in module.named_modules() if child.training]
    if not training:
        return
    telling = [(n, c) for n, c in training if isinstance(c, _CHANGES_IN_TRAINING)] or training
    name, child = telling[0]
    raise RefusedModelError(
        f"the model is in training mode: {len(training)} of its modules, such as "
        f"'{name or 'the model itself'}' ({type(child).__name__})",
        where=where_is(module),
        do="call model.eval() before you return it",
    )


_CHANGES_IN_TRAINING: Final = (
    nn.modules.batchnorm._BatchNorm,  # noqa: SLF001  (the common class has no public name)
    nn.modules.dropout._DropoutNd,  # noqa: SLF001
    nn.RReLU,
)


def tensors_from(arrays: Sequence[Any]) -> tuple[Tensor, ...]:
    """Copy arrays into tensors, so that a module may write to its inputs."""
    return tuple(torch.from_numpy(array).clone() for array in arrays)
