"""PyTorch part -> exported program, with the axes that were asked for or an error that says where they went.

``torch.export`` is called here rather than by ``torch.onnx``, which weakens named dimensions and then
loses them in silence.
"""

from __future__ import annotations

import inspect
import io
import linecache
import logging
import re
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._guards import detect_fake_mode
from torch.export import Dim as ExportDim

from anyport.cases import Case, Constant, Fill, Normal, Uniform
from anyport.errors import AxisError, ExportError, RefusedModelError
from anyport.graph.refusals import changes_state, check_program
from anyport.source import Adapter, check_eval_mode
from anyport.source.adapter import tensors_from
from anyport.source.lines import first_line, innermost, user_line, user_line_of, where_is

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.export import ExportedProgram

    from anyport.recipe import Part
    from anyport.tensors import Dim, TensorSpec

_SPECIALISED: Final = re.compile(
    r"specializ|inferred to be a constant|not all values of|Constraints violated|must be equal", re.IGNORECASE
)
_MIN_EXAMPLE: Final = 3  # torch.export specialises sizes 0 and 1; 2 hides mistakes of broadcasting


@dataclass(frozen=True, slots=True)
class Capture:
    """A part as an exported program.

    Attributes:
        program: Of the part behind its `Adapter`: weights are called ``module.<name>``.
        sizes: The size of each named axis that the export saw.
        warnings: What the graph will not do that the module does.
    """

    program: ExportedProgram
    sizes: Mapping[str, int]
    warnings: tuple[str, ...]

    @property
    def is_hollow(self) -> bool:
        """Whether the weights have shapes and no numbers (`anyport.graph.hollow`)."""
        return detect_fake_mode(list(self.program.state_dict.values())) is not None


def capture(part: Part) -> Capture:
    """Export a part with ``torch.export``.

    Raises:
        RefusedModelError: Training mode, random operators, a branch chosen silently.
        AxisError: A dynamic axis became constant.
        ExportError: Something else that cannot be exported; it names the user's line.
    """
    check_eval_mode(part.module)
    adapter = Adapter(part)
    sizes = example_sizes(tuple(part.signature.dims.values()))
    program = _export(adapter, _like_weights(example_tensors(part, sizes), part), part)
    return Capture(program, sizes, check_program(program, part))


def example_sizes(dims: Sequence[Dim]) -> dict[str, int]:
    """Choose the sizes that the export sees: small, allowed, and different from each other.

    >>> from anyport.tensors import dim
    >>> example_sizes([dim("batch", "1..64"), dim("sequence", "1..128"), dim("height", "32..64:32")])
    {'batch': 3, 'sequence': 5, 'height': 64}
    """
    sizes: dict[str, int] = {}
    for place, dim in enumerate(dims):
        wish = max(dim.low, _MIN_EXAMPLE + 2 * place, dim.low + dim.step * (dim.step > 1))
        size = -(-wish // dim.step) * dim.step
        while size in sizes.values() and size + dim.step <= dim.high:
            size += dim.step
        sizes[dim.name] = min(size, dim.high)
    return sizes


def example_tensors(part: Part, sizes: Mapping[str, int]) -> tuple[torch.Tensor, ...]:
    """Make the inputs that an export sees, one tensor for each input of the part."""
    arrays = _example(part.signature.inputs, sizes).arrays(part.signature.inputs)
    return tensors_from([arrays[spec.name] for spec in part.signature.inputs])


def _like_weights(tensors: tuple[torch.Tensor, ...], part: Part) -> tuple[torch.Tensor, ...]:
    """Return inputs that are fake where the weights are: torch computes with one kind at a time."""
    mode = detect_fake_mode(list(part.module.parameters()))
    return tensors if mode is None else tuple(mode.from_tensor(tensor) for tensor in tensors)


def _example(inputs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> Case:
    fills: dict[str, Fill] = {}
    for seed, spec in enumerate(inputs):
        if spec.is_mask:
            fills[spec.name] = Constant(1)
        elif spec.low is not None and spec.high is not None:
            fills[spec.name] = Uniform(seed, spec.low, spec.high)
        else:
            fills[spec.name] = Normal(seed) if spec.is_float else Constant(1)
    return Case("export", "random", sizes, fills, {})


def dynamic_shapes(part: Part) -> tuple[tuple[dict[int, Any], ...], ...]:
    """Return the dimensions of every input as ``torch.export`` wants them for an `Adapter`."""
    dims = {name: _export_dim(dim) for name, dim in part.signature.dims.items()}
    return (tuple(_dynamic_axes(spec, dims) for spec in part.signature.inputs),)


def _dynamic_axes(spec: TensorSpec, dims: Mapping[str, Any]) -> dict[int, Any]:
    """Return axis number -> dimension; a computed one, such as ``past+sequence``, is found by torch."""
    computed = {
        place: ExportDim.AUTO
        for place, axis in enumerate(spec.axes)
        if axis.name is None and not axis.is_fixed
    }
    return computed | {place: dims[name] for place, name in spec.dynamic_axes().items()}


def _export_dim(dim: Dim) -> Any:
    if dim.step == 1:
        return ExportDim(dim.name, min=dim.low, max=dim.high)
    unit = ExportDim(f"{dim.name}_units", min=dim.low // dim.step, max=dim.high // dim.step)
    return dim.step * unit


def _export(adapter: Adapter, tensors: tuple[torch.Tensor, ...], part: Part) -> ExportedProgram:
    shapes = dynamic_shapes(part)
    try:
        with quiet(), torch.no_grad(), _buffers_kept(adapter, part):
            return torch.export.export(adapter, tensors, dynamic_shapes=shapes, strict=False)
    except RefusedModelError:
        raise
    except Exception as err:
        line = user_line_of(err)
        if _is_assert(line):
            return _export_with_asserts(adapter, tensors, part)
        raise _explain(err, adapter, tensors, part) from err


@contextmanager
def _buffers_kept(adapter: Adapter, part: Part) -> Iterator[None]:
    """Refuse a module that puts new tensors in the place of its buffers: the program does not show it."""
    before: dict[str, torch.Tensor] = {}
    replaced: list[str] = []

    def note(module: torch.nn.Module, _inputs: Any) -> None:
        before.update(module.named_buffers())

    def compare(module: torch.nn.Module, _inputs: Any, _outputs: Any) -> None:
        replaced.extend(name for name, buffer in module.named_buffers() if before.get(name) is not buffer)

    hooks = (adapter.register_forward_pre_hook(note), adapter.register_forward_hook(compare))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if replaced:
        raise changes_state(replaced[0], part, where_is(part.module))


def _is_assert(line: str | None) -> bool:
    return line is not None and re.search(r":\d+: assert\b", line) is not None


def _export_with_asserts(adapter: Adapter, tensors: tuple[torch.Tensor, ...], part: Part) -> ExportedProgram:
    """Trace the byte code: it turns an assert about values into an operator, which ONNX then drops."""
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(adapter, tensors, dynamic_shapes=dynamic_shapes(part), strict=True)
    except Exception as err:
        raise _explain(err, adapter, tensors, part) from err


def _explain(
    error: Exception, adapter: Adapter, tensors: tuple[torch.Tensor, ...], part: Part
) -> ExportError:
    cause = innermost(error)
    text = f"{error}\n{cause}"
    if "data-dependent expression" in str(cause) or "DataDependent" in type(cause).__name__:
        return ExportError(
            f"part '{part.name}' decides something by a value: {first_line(cause)}",
            where=user_line_of(error),
            do="compute it outside the model and give it as an input, or use torch.where / torch.cond",
        )
    if _SPECIALISED.search(text):
        axis = _named_axis(text, part)
        where = _specialised_line(adapter, tensors, part) or user_line_of(error) or where_is(part.module)
        return AxisError(
            f"axis '{axis}' of part '{part.name}' was asked for as dynamic, and the model makes it constant",
            where=where,
            do="compute with x.shape[i] as a number (not torch.as_tensor(x.shape[i]), not a Python branch), "
            "or declare the axis fixed, or give the dim a step it divides by (64..1024:32)",
        )
    return ExportError(
        f"part '{part.name}' cannot be exported: {type(cause).__name__}: {first_line(cause)}",
        where=user_line_of(error) or where_is(part.module),
    )


def _named_axis(text: str, part: Part) -> str:
    found = [
        (text.find(f"{mark}{name}{suffix}"), name)
        for name in part.signature.dims
        for suffix in ("", "_units")
        for mark in ("marked ", "violated (", "values of ", "for ")
        if re.search(re.escape(mark + name + suffix) + r"\b", text)
    ]
    return min(found)[1] if found else "/".join(part.signature.dims)


def _specialised_line(adapter: Adapter, tensors: tuple[torch.Tensor, ...], part: Part) -> str | None:
    """Find the line that made an axis constant; draft_export's report is not public, so it may be absent."""
    try:
        with quiet(), torch.no_grad():
            draft = torch.export.draft_export(adapter, tensors, dynamic_shapes=dynamic_shapes(part))
        report = draft._report  # type: ignore[attr-defined]  # noqa: SLF001
        failures, files = report.failures, report.str_to_filename
    except Exception:  # noqa: BLE001  (only a better message is at stake)
        return None
    own = _source_files(part)
    for failure in failures:
        stack = failure.data.get("user_stack") or failure.data.get("stack") or []
        text = "\n".join(_frame_text(frame, files, own) for frame in stack)
        if (line := user_line(text)) is not None:
            return line
    return None


def _frame_text(frame: Mapping[str, Any], files: Mapping[int, str], own: Sequence[str]) -> str:
    code, number = str(frame.get("loc") or ""), int(frame["line"])
    # torch names each file once per process, so a second report may have lost it: look the line up
    path = files.get(frame["filename"]) or next(
        (file for file in own if linecache.getline(file, number).strip() == code), "<unknown>"
    )
    return f'File "{path}", line {number}, in {frame["name"]}\n  {code}'


def _source_files(part: Part) -> tuple[str, ...]:
    files: list[str | None] = []
    for cls in {type(module) for module in part.module.modules()}:
        with suppress(TypeError, OSError):
            files.append(inspect.getsourcefile(cls))
    return tuple(sorted({file for file in files if file}))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's own advice to itself: what matters is said by anyport's errors."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
