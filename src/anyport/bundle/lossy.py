"""The proof of a lossy variant: samples, the exact answers to them, and how far an answer may be off.

What an INT8 graph answers depends on the instructions of the processor, so there are no bits to compare with:
``proof/<variant>.json`` says by which metric each output is judged and which value passes, and
``proof/<variant>.safetensors`` holds the inputs and the exact answers. Any machine can measure anew.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np

from anyport.bundle.disk import disk_errors
from anyport.bundle.manifest import EXACT_PROOF_NAMES, MetricEntry, lossy_files
from anyport.bundle.paths import check_names, shown
from anyport.bundle.proof import StoredArrays
from anyport.bundle.strictjson import decode_json
from anyport.bundle.tensorfile import DTYPES, TensorFileWriter, dtype_code
from anyport.errors import BundleError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, KeysView, Mapping
    from pathlib import Path

    from anyport.bundle.manifest import PartEntry
    from anyport.bundle.reading import Bundle
    from anyport.bundle.tensorfile import TensorEntry
    from anyport.tensors import TensorSpec

MAX_RUNS: Final = 256
MAX_RUN_BYTES: Final = 1 << 30  # the inputs and answers of one run, in the types of the graph


class OutputMetric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one output is judged.

    Attributes:
        metric: ``top-1``, ``cosine`` or ``psnr``.
        allowance: The least value that passes, on any machine.
        value: What was found when the bundle was built; at least ``allowance``.
        axis: ``top-1``: along which axis the largest score is chosen.
        peak: ``psnr``: largest minus least value that there is; ``None``: that of the recorded answers.
    """

    metric: str
    allowance: float
    value: float
    axis: int = -1
    peak: float | None = None


class LossyRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of the exact model.

    Attributes:
        sizes: Named axis -> size.
        inputs: Input -> key of its array.
        answers: Output -> key of the exact answer.
    """

    sizes: dict[str, Annotated[int, msgspec.Meta(ge=1)]]
    inputs: dict[str, str]
    answers: dict[str, str]


class LossyPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part: how every output is judged, and the runs it is judged by."""

    outputs: dict[str, OutputMetric]
    runs: Annotated[list[LossyRun], msgspec.Meta(min_length=1, max_length=MAX_RUNS)]


class LossyTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole task, where a model of several parts is judged by what they do together.

    Attributes:
        parts: Those whose graph is lossy.
        judged: How every output of the task's trial (`anyport.task.trials`) is judged, and its samples.
    """

    parts: Annotated[list[str], msgspec.Meta(min_length=1)]
    judged: LossyPart


class LossyProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The proof of one lossy variant.

    Attributes:
        parts: Every part whose graph is lossy. The others are proven by ``proof/cases.json``.
        isa: The instruction sets of the processor that found the values.
        task: In the place of ``parts``, which is empty then.
    """

    parts: dict[str, LossyPart]
    isa: list[str]
    task: LossyTask | None = None


def write_lossy_proof(
    folder: Path, variant: str, proof: LossyProof, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write the proof of a lossy variant into a bundle that is being made.

    Args:
        folder: Of the bundle.
        variant: Its name.
        proof: Says which arrays there are.
        arrays: By key; a type narrower than that of the tensor will do, if it loses nothing in coming back.

    Raises:
        BundleError: A number is none, an array is missing or too many, or the disk is full.
    """
    check_names("variant", [variant], str(folder))
    if variant.lower() in EXACT_PROOF_NAMES:
        raise BundleError(f"a lossy variant cannot be called '{variant}', as the exact proof is")
    json_file, arrays_file = lossy_files(variant)
    content = msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n"
    decode_json(content, LossyProof, json_file, str(folder))
    _check_keys(proof, arrays.keys(), arrays_file, str(folder))
    with disk_errors("write", folder / json_file, len(content)):
        (folder / "proof").mkdir(exist_ok=True)
        (folder / json_file).write_bytes(content)
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    forms = [(key, dtype_code(arrays[key].dtype), arrays[key].shape) for key in order]
    with TensorFileWriter(folder / arrays_file, forms) as writer:
        for key in order:
            writer.write(key, arrays[key])


def read_lossy_proof(bundle: Bundle, variant: str) -> tuple[LossyProof, StoredArrays]:
    """Read the proof of a lossy variant and check it against the manifest; no array is read yet.

    Args:
        bundle: Stays the caller's to close.
        variant: Its name; one that is judged part by part.

    Raises:
        BundleError: It is missing, speaks of other tensors than the parts have, or says something else than
            the manifest.
        UsageError: There is no such variant, it is not lossy, or its task judges (`read_lossy_task`).
    """
    _, proof, arrays = _read(bundle, variant)
    where, json_file = str(bundle.path), lossy_files(variant)[0]
    if proof.task is not None:
        raise UsageError(f"{shown(variant)} is judged by its task as a whole", where=where)
    for name, part in proof.parts.items():
        reason = _part_fault(part, bundle.manifest.parts[name], arrays.entries)
        if reason is not None:
            raise BundleError(f"{json_file}: part {name}: {reason}", where=where)
    return proof, arrays


@dataclass(frozen=True, slots=True)
class StoredTask:
    """The proof of a variant whose task is judged as a whole; what the task takes and gives is not known yet.

    Attributes:
        parts: Those whose graph is lossy.
        n_declared: How many samples the manifest says there are.
        arrays: By key; no array is read yet.
        place: What messages call the proof.
        where: The bundle.
    """

    parts: tuple[str, ...]
    n_declared: int
    arrays: StoredArrays
    place: str
    where: str
    _judged: LossyPart

    def judged(self, form: PartEntry, run: Collection[str]) -> LossyPart:
        """Return how every output of the task's trial is judged, and by which samples.

        Args:
            form: What the trial takes and gives.
            run: The parts that it runs: on any other it would say nothing.

        Raises:
            BundleError: The proof speaks of other tensors, or of a part that is not run.
        """
        idle = sorted(set(self.parts) - set(run))
        fault = f"it judges the part {shown(idle[0])}, which the task does not run" if idle else None
        fault = fault or _part_fault(self._judged, form, self.arrays.entries)
        if fault is not None:
            raise BundleError(f"{self.place}: {fault}", where=self.where)
        return self._judged


def read_lossy_task(bundle: Bundle, variant: str) -> StoredTask:
    """Read the proof of a variant whose task is judged as a whole; see `read_lossy_proof`.

    Raises:
        BundleError: It is missing, names a part twice, or says something else than the manifest.
        UsageError: There is no such variant, it is not lossy, or its parts are judged one by one.
    """
    entry, proof, arrays = _read(bundle, variant)
    where, place = f"{bundle.path}, variant {variant}", f"{lossy_files(variant)[0]}: task"
    found = proof.task
    if found is None:
        raise UsageError(f"{shown(variant)} is judged part by part", where=str(bundle.path))
    strange = sorted(set(found.parts) - set(bundle.manifest.parts))
    if strange:
        raise BundleError(
            f"{place}: it speaks of the part {shown(strange[0])}, which is not there", where=where
        )
    [(name, n), *_] = Counter(found.parts).most_common(1)
    if n > 1:
        raise BundleError(f"{place}: it names the part {shown(name)} {n} times", where=where)
    return StoredTask(tuple(found.parts), entry.n_samples, arrays, place, where, found.judged)


def _read(bundle: Bundle, variant: str) -> tuple[MetricEntry, LossyProof, StoredArrays]:
    """Read what both kinds of proof have in common."""
    where = str(bundle.path)
    variants = bundle.manifest.variants
    entry = variants[variant].metric if variant in variants else None
    if entry is None:
        lossy = [name for name, one in variants.items() if one.metric is not None]
        raise UsageError(
            f"{shown(variant)} is no lossy variant{did_you_mean(variant[:100], lossy)}", where=where
        )
    json_file, arrays_file = lossy_files(variant)
    proof = decode_json(bundle.read_bytes(json_file), LossyProof, json_file, where)
    if proof.task is not None and proof.parts:
        alone = f"the part {shown(min(proof.parts))} alone"
        raise BundleError(f"{json_file}: task: it is judged as a whole, and {alone}", where=where)
    fault = _entry_fault(entry, proof)
    if fault is not None:
        raise BundleError(f"{json_file}: {fault}", where=where)
    strange = sorted(set(proof.parts) - set(bundle.manifest.parts))
    if strange:
        raise BundleError(
            f"{json_file} speaks of the part {shown(strange[0])}, which is not there", where=where
        )
    arrays = StoredArrays(bundle.file(arrays_file))
    _check_keys(proof, arrays.entries.keys(), arrays_file, where)
    return entry, proof, arrays


def _judged(proof: LossyProof) -> list[LossyPart]:
    return [*proof.parts.values(), *([proof.task.judged] if proof.task is not None else [])]


def _check_keys(proof: LossyProof, keys: KeysView[str], file: str, where: str) -> None:
    """Refuse arrays that are missing, unused, or in two places: few samples would look like many."""
    runs = [run for part in _judged(proof) for run in part.runs]
    used = Counter(key for run in runs for named in (run.inputs, run.answers) for key in named.values())
    twice = {key for key, n in used.items() if n > 1}
    faults = (
        ("lacks", used.keys() - keys),
        ("has an unused", keys - used.keys()),
        ("uses twice the", twice),
    )
    for verb, names in faults:
        if names:
            raise BundleError(f"{file} {verb} array {shown(min(names))}", where=where)


def _entry_fault(entry: MetricEntry, proof: LossyProof) -> str | None:
    """Say where the manifest and the proof differ: one of the two was exchanged."""
    whole = proof.task.judged if proof.task is not None else None
    part = proof.parts.get(entry.part) if entry.part else whole
    own = part.outputs.get(entry.output) if part is not None else None
    if own is None:
        place = f"part {shown(entry.part)}" if entry.part else "the whole task"
        judged = f"output {shown(entry.output)} of {place}"
        return f"it does not judge {judged}, as the manifest says"
    pairs = (
        ("metric", own.metric, entry.metric),
        ("allowance", own.allowance, entry.allowance),
        ("value", own.value, entry.value),
        ("isa", proof.isa, entry.isa),
    )
    wrong = next(((word, one, two) for word, one, two in pairs if one != two), None)
    if wrong is None:
        return None
    return f"its {wrong[0]} is {shown(str(wrong[1]))}, the manifest says {shown(str(wrong[2]))}"


def _part_fault(part: LossyPart, entry: PartEntry, entries: Mapping[str, TensorEntry]) -> str | None:
    inputs, outputs = entry.input_specs(), entry.output_specs()
    if part.outputs.keys() != {spec.name for spec in outputs}:
        return "the outputs that it judges are not those of the part"
    for name, one in part.outputs.items():
        if one.value < one.allowance:
            return f"output '{name}' had {one.value} when it was built, its own allowance is {one.allowance}"
    for number, run in enumerate(part.runs, start=1):
        reason = _run_fault(run, entry, (inputs, outputs), entries)
        if reason is not None:
            return f"run {number}: {reason}"
    return None


def _run_fault(
    run: LossyRun,
    part: PartEntry,
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
    entries: Mapping[str, TensorEntry],
) -> str | None:
    (inputs, outputs), dims = specs, part.dim_ranges()
    if run.inputs.keys() != {spec.name for spec in inputs}:
        return "its inputs are not those of the part"
    if run.answers.keys() != {spec.name for spec in outputs}:
        return "its answers are not those of the part"
    for name, size in run.sizes.items():
        if name in dims and not dims[name].holds(size):
            return f"{shown(name)} is {size}, the part takes {dims[name]}"
    named = {name for spec in inputs for axis in spec.axes for name in axis.names}
    if not named <= run.sizes.keys():
        return f"it gives no size to {shown(min(named - run.sizes.keys()))}"
    pairs = [(spec, entries[run.inputs[spec.name]]) for spec in inputs]
    pairs += [(spec, entries[run.answers[spec.name]]) for spec in outputs]
    size_bytes = sum(math.prod(one.shape) * np.dtype(spec.dtype).itemsize for spec, one in pairs)
    if size_bytes > MAX_RUN_BYTES:
        return f"it has {size_bytes} bytes, at most {MAX_RUN_BYTES} are read"
    return next((fault for spec, one in pairs if (fault := _tensor_fault(spec, one, run.sizes))), None)


def _tensor_fault(spec: TensorSpec, entry: TensorEntry, sizes: Mapping[str, int]) -> str | None:
    stored = f"'{spec.name}' is stored as {entry.dtype}{list(entry.shape)}"
    if not widens(entry.dtype, spec.dtype):
        return f"{stored}, which is no {spec.dtype}"
    if len(entry.shape) != len(spec.axes):
        return f"{stored}, must be {spec}"
    for axis, size in zip(spec.axes, entry.shape, strict=True):
        if not axis.names <= sizes.keys():
            continue  # an axis of an output alone, such as the number of boxes
        try:
            wanted = axis.size(sizes)
        except UsageError as err:
            return f"'{spec.name}': {err.what}"
        if wanted != size:
            return f"{stored}, axis '{axis}' must be {wanted}"
    return None


def widens(code: str, dtype: str) -> bool:
    """Say whether arrays stored as ``code`` become ``dtype`` without changing a value.

    >>> widens("F16", "float32"), widens("I64", "int32"), widens("BF16", "float32")
    (True, False, False)
    """
    if code in {"BF16", "F8_E4M3", "F8_E5M2"}:
        return False  # read as bits
    stored, wanted = np.dtype(DTYPES[code]).newbyteorder("="), np.dtype(dtype)
    same_kind = {stored.kind, wanted.kind} <= {"i", "u"} or stored.kind == wanted.kind
    return same_kind and np.can_cast(stored, wanted, "safe")
