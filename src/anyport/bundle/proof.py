"""The proof a bundle carries: inputs, PyTorch's answers to them, and how exact an answer can be.

``proof/cases.json`` says which inputs and answers there are; ``proof/arrays.safetensors`` holds the answers
and those inputs that no generator makes. Any machine can run them again without PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np

from anyport.bundle.disk import disk_errors
from anyport.bundle.paths import shown
from anyport.bundle.strictjson import decode_json
from anyport.bundle.tensorfile import (
    TensorEntry,
    TensorFileWriter,
    dtype_code,
    read_header,
    read_tensor,
)
from anyport.cases import Case, CaseKind, Constant, Fill, Normal, Stored, Uniform
from anyport.errors import BundleError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.bundle.manifest import PartEntry
    from anyport.bundle.reading import Bundle
    from anyport.tensors import TensorSpec

CASES_FILE: Final = "proof/cases.json"
ARRAYS_FILE: Final = "proof/arrays.safetensors"
MAX_CASE_BYTES: Final = 4 << 30
_NORMAL_REACH: Final = 3.5  # `Normal` never goes beyond 3.5 standard deviations
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class RecordedFloor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far PyTorch's own float32 answer is from the recorded one.

    Attributes:
        max_abs: Largest difference.
        rms: Root of the mean square of the differences.
        how: How it was measured.
    """

    max_abs: _NotNegative
    rms: _NotNegative
    how: str


class ProofCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of one part.

    Attributes:
        name: Unique in its part.
        kind: ``typical``, ``boundary`` or ``random``.
        sizes: Named axis -> size.
        fills: Input -> how its array is made.
        outputs: Output -> key of the recorded answer.
        floors: Output -> floor, for the outputs that have one.
        shapes: Output -> its shape, for those of which a sample is recorded; see `sample_of`.
    """

    name: str
    kind: CaseKind
    sizes: dict[str, Annotated[int, msgspec.Meta(ge=0)]]
    fills: dict[str, Fill]
    outputs: dict[str, str]
    floors: dict[str, RecordedFloor]
    shapes: dict[str, list[Annotated[int, msgspec.Meta(ge=0)]]] = {}


class ProofTolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many times its floor an answer may be off."""

    max_abs_multiple: _NotNegative
    rms_multiple: _NotNegative


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All recorded runs.

    Attributes:
        parts: Part -> its cases.
        tolerance: What passes.
        omitted: Cases that were compared when the bundle was built and are too large to carry.
    """

    parts: dict[str, list[ProofCase]]
    tolerance: ProofTolerance
    omitted: list[str]


class StoredArrays(Mapping[str, np.ndarray]):
    """The arrays of a proof by key; each is read from the disk when it is asked for, and not kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: Mapping[str, TensorEntry] = read_header(path)

    def __getitem__(self, key: str) -> np.ndarray:
        """Read one array."""
        return read_tensor(self._path, self.entries[key])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.entries)


def sample_of(array: np.ndarray, n_elements: int) -> np.ndarray:
    """Return evenly spread elements of an array, as a proof keeps them where the whole is too large.

    Element ``i`` is element ``i * size // n_elements`` in row-major order.

    >>> sample_of(np.arange(10).reshape(2, 5), 4).tolist()
    [0, 2, 5, 7]
    """
    flat = array.reshape(-1)
    return flat[np.arange(n_elements, dtype=np.int64) * flat.size // n_elements].copy()


def index_in_whole(place: int, n_elements: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return where an element of a sample lies in the array that the sample was taken of.

    >>> index_in_whole(3, 4, [2, 5])
    (1, 2)

    Args:
        place: In the sample.
        n_elements: Of the sample.
        shape: Of the whole.
    """
    return tuple(int(i) for i in np.unravel_index(place * math.prod(shape) // n_elements, tuple(shape)))


def write_proof(folder: Path, proof: Proof, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a proof into a bundle that is being made.

    Args:
        folder: Of the bundle.
        proof: Says which arrays there are.
        arrays: The recorded outputs and stored inputs by key.

    Raises:
        BundleError: A floor is not a number, an array is missing or too many, or the disk is full.
    """
    content = msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n"
    decode_json(content, Proof, CASES_FILE, str(folder))
    _check_keys(proof, arrays.keys(), str(folder))
    with disk_errors("write", folder / CASES_FILE, len(content)):
        (folder / "proof").mkdir(exist_ok=True)
        (folder / CASES_FILE).write_bytes(content)
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    forms = [(key, dtype_code(arrays[key].dtype), arrays[key].shape) for key in order]
    with TensorFileWriter(folder / ARRAYS_FILE, forms) as writer:
        for key in order:
            writer.write(key, arrays[key])


def read_proof(bundle: Bundle) -> Proof:
    """Read the proof of a bundle and check it against the manifest.

    Raises:
        BundleError: There is none, or it speaks of other tensors than the parts have.
    """
    where = str(bundle.path)
    proof = decode_json(bundle.read_bytes(CASES_FILE), Proof, CASES_FILE, where)
    entries = open_arrays(bundle).entries
    _check_keys(proof, entries.keys(), where)
    for part, cases in proof.parts.items():
        if part not in bundle.manifest.parts:
            raise BundleError(
                f"{CASES_FILE} speaks of the part {shown(part)}, which is not there", where=where
            )
        names = [case.name for case in cases]
        if len(set(names)) != len(names):
            raise BundleError(f"{CASES_FILE}: two cases of part {part} have one name", where=where)
        for case in cases:
            reason = _case_fault(case, bundle.manifest.parts[part], entries)
            if reason is not None:
                raise BundleError(
                    f"{CASES_FILE}: case {shown(case.name)} of part {part}: {reason}", where=where
                )
    return proof


def open_arrays(bundle: Bundle) -> StoredArrays:
    """Open the arrays of a bundle's proof."""
    return StoredArrays(bundle.file(ARRAYS_FILE))


def case_of(proof_case: ProofCase, arrays: Mapping[str, np.ndarray]) -> Case:
    """Return the inputs of a recorded run; arrays are read when the case makes its inputs."""
    return Case(proof_case.name, proof_case.kind, proof_case.sizes, proof_case.fills, arrays)


def answers_of(proof_case: ProofCase, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read the recorded answers of one run: output -> array."""
    return {name: arrays[key] for name, key in proof_case.outputs.items()}


def _check_keys(proof: Proof, keys: Any, where: str) -> None:  # noqa: ANN401 - KeysView of two mappings
    cases = [case for each in proof.parts.values() for case in each]
    wanted = {key for case in cases for key in case.outputs.values()}
    wanted |= {fill.key for case in cases for fill in case.fills.values() if isinstance(fill, Stored)}
    for verb, names in (("lacks", wanted - keys), ("has an unused", keys - wanted)):
        if names:
            raise BundleError(f"{ARRAYS_FILE} {verb} array {shown(min(names))}", where=where)


def _case_fault(case: ProofCase, part: PartEntry, entries: Mapping[str, TensorEntry]) -> str | None:
    """Say what is wrong with a case; ``None`` if nothing is."""
    inputs, outputs, dims = part.input_specs(), part.output_specs(), part.dim_ranges()
    if case.fills.keys() != {spec.name for spec in inputs}:
        return "its inputs are not those of the part"
    if (
        case.outputs.keys() != {spec.name for spec in outputs}
        or not case.floors.keys() <= case.outputs.keys()
    ):
        return "its outputs are not those of the part"
    named = {name for spec in inputs for axis in spec.axes for name in axis.names}
    if not named <= case.sizes.keys():
        return f"it gives no size to {shown(min(named - case.sizes.keys()))}"
    for name, size in case.sizes.items():
        if name in dims and not dims[name].holds(size):
            return f"{shown(name)} is {size}, the part takes {dims[name]}"
    if not case.shapes.keys() <= case.outputs.keys():
        return f"it samples {shown(min(case.shapes.keys() - case.outputs.keys()))}, which is no output"
    faults = (_input_fault(case.fills[spec.name], spec, case.sizes, entries) for spec in inputs)
    answers = (
        _output_fault(entries[case.outputs[spec.name]], spec, case.shapes.get(spec.name)) for spec in outputs
    )
    return next((fault for fault in (*faults, *answers) if fault), None)


def _input_fault(
    fill: Fill, spec: TensorSpec, sizes: Mapping[str, int], entries: Mapping[str, TensorEntry]
) -> str | None:
    try:
        shape = spec.shape(sizes)
    except UsageError as err:
        return f"input '{spec.name}': {err.what}"
    if math.prod(shape) * np.dtype(spec.dtype).itemsize > MAX_CASE_BYTES or min(shape, default=0) < 0:
        return f"input '{spec.name}' would be {list(shape)}, too large to make"
    if isinstance(fill, Stored):
        entry = entries[fill.key]
        fits = entry.shape == shape and entry.dtype == dtype_code(np.dtype(spec.dtype))
        return None if fits else f"input '{spec.name}' is stored as {entry.dtype}{list(entry.shape)}"
    fits = all(_fits(value, spec.dtype) for value in _reach(fill))
    return None if fits else f"input '{spec.name}' is made of values that {spec.dtype} does not have"


def _output_fault(entry: TensorEntry, spec: TensorSpec, sampled: list[int] | None) -> str | None:
    shape = entry.shape if sampled is None else tuple(sampled)
    fixed = zip(spec.axes, shape, strict=False)
    is_fit = len(shape) == len(spec.axes) and all(
        not axis.is_fixed or axis.size({}) == size for axis, size in fixed
    )
    if sampled is not None:
        is_fit = is_fit and len(entry.shape) == 1 and 0 < entry.shape[0] < math.prod(shape)
    if is_fit and entry.dtype == dtype_code(np.dtype(spec.dtype)):
        return None
    what = "stored" if sampled is None else f"a sample of {sampled}, stored"
    return f"output '{spec.name}' is {what} as {entry.dtype}{list(entry.shape)}, the part gives {spec}"


def _reach(fill: Fill) -> tuple[float, ...]:
    """Return the smallest and the largest value that a generator makes."""
    if isinstance(fill, Constant):
        return (fill.value,)
    if isinstance(fill, Normal):
        return (-_NORMAL_REACH * abs(fill.scale), _NORMAL_REACH * abs(fill.scale))
    if isinstance(fill, Uniform):
        is_range = fill.low <= fill.high and math.isfinite(fill.high - fill.low)
        return (fill.low, fill.high) if is_range else (math.inf,)
    return (0.0, 1.0)


def _fits(value: float, dtype: str) -> bool:
    if not math.isfinite(value):
        return False
    if dtype == "bool":
        return value in {0.0, 1.0}
    if dtype.startswith("float"):
        return abs(value) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return int(limits.min) <= int(value) <= int(limits.max)
