"""The parts of a bundle with several: what they must take and give, and opening them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.errors import UsageError
from anyport.task.bounded_parts import BoundedParts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anyport.runtime import Session
    from anyport.task.graphs import Graphs
    from anyport.task.task import TaskOptions
    from anyport.tensors import Dim, Signature, TensorSpec


@dataclass(frozen=True, slots=True)
class Form:
    """Tensor -> number of axes; a ``*`` in a name stands for each layer."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


_BATCH_AXIS: Final = {("position_ids", 3): 1}  # frames, rows and columns stand before the batch
_IDS: Final = {"input_ids": 2, "attention_mask": 2}
FORMS: Final[Mapping[str, Form]] = {
    "cross_keys": Form({"encoder_hidden_states": 3}, {"cross_*_k": 4, "cross_*_v": 4}),
    "image_projection": Form({"image_state": 2}, {"image_features": 2}),
    "itm_head": Form({"multimodal_state": 2}, {"itm_logits": 2}),
    "multimodal_encoder": Form({**_IDS, "image_embeds": 3}, {"multimodal_embeds": 3}),
    "question_encoder": Form({**_IDS, "image_embeds": 3}, {"question_embeds": 3}),
    "text_decoder": Form(
        {
            **_IDS,
            "position_ids": 2,
            "cross_mask": 2,
            "past_*_k": 4,
            "past_*_v": 4,
            "cross_*_k": 4,
            "cross_*_v": 4,
        },
        {"logits": 2, "present_*_k": 4, "present_*_v": 4},
    ),
    "text_encoder": Form(_IDS, {"text_embeds": 3}),
    "text_projection": Form({"text_state": 2}, {"text_features": 2}),
    "vision_encoder": Form({"pixel_values": 4}, {"image_embeds": 3}),
}


def check_parts(task: str, wanted: Iterable[str], parts: Mapping[str, Signature]) -> None:
    """Check that a model has the parts of a task, each of its form.

    Raises:
        UsageError: A part is missing, or takes or gives other tensors.
    """
    check_forms(task, {name: FORMS[name] for name in wanted}, parts)


def check_forms(task: str, forms: Mapping[str, Form], parts: Mapping[str, Signature]) -> None:
    """Check that a model has these parts, each of its form.

    Raises:
        UsageError: A part is missing, or takes or gives other tensors.
    """
    for name, form in forms.items():
        if name not in parts:
            listed = ", ".join(parts) or "none"
            raise UsageError(f"the task '{task}' needs a part '{name}', the model has: {listed}")
        signature = parts[name]
        for kind, axes, specs in (
            ("inputs", form.inputs, signature.inputs),
            ("outputs", form.outputs, signature.outputs),
        ):
            _check_tensors(f"the {kind} of part '{name}'", _expanded(axes, signature), specs)


def _expanded(axes: Mapping[str, int], signature: Signature) -> dict[str, int]:
    """Return the tensors of every layer: as many as there are keys."""
    names = [spec.name for spec in (*signature.inputs, *signature.outputs)]
    n_layers = len([name for name in names if name.startswith("cross_") and name.endswith("_k")])
    found: dict[str, int] = {}
    for name, n_axes in axes.items():
        each = [name.replace("*", str(i)) for i in range(n_layers)] if "*" in name else [name]
        found |= dict.fromkeys(each, n_axes)
    return found


def _check_tensors(what: str, wanted: Mapping[str, int], specs: Iterable[TensorSpec]) -> None:
    found = {spec.name: spec for spec in specs}
    if set(found) != set(wanted):
        lacking, strange = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        raise UsageError(
            f"{what} must be {', '.join(sorted(wanted))}"
            + (f"; missing: {', '.join(lacking)}" if lacking else "")
            + (f"; unknown: {', '.join(strange)}" if strange else "")
        )
    for name, spec in found.items():
        batch = _BATCH_AXIS.get((name, len(spec.axes)), 0)
        if len(spec.axes) != wanted[name] or spec.axes[batch].is_fixed:
            raise UsageError(
                f"{what}: '{name}' must have {wanted[name]} axes, the first of them dynamic; it is {spec}"
            )


class OpenParts:
    """The parts that a task needs, closed together.

    They are open from the beginning; under a memory limit they open when they run.
    """

    def __init__(
        self,
        graphs: Graphs,
        wanted: Iterable[str],
        options: TaskOptions,
        *,
        at_once: bool = True,
        relief: Mapping[str, str] | None = None,
    ) -> None:
        """Open them.

        Args:
            graphs: They are closed with the parts.
            wanted: The names of parts.
            options: How.
            at_once: Whether the task needs all of them; where it does not, a part opens when it is asked for.
            relief: Part -> what a user can do where it needs too much memory.
        """
        self.graphs = graphs
        self._options = options
        self._names = tuple(wanted)
        self._sessions: dict[str, Session] = {}
        if options.max_memory_bytes is not None:
            bounded = BoundedParts(graphs, self._names, options, at_once=at_once, relief=relief or {})
            self._sessions = {name: bounded.part(name) for name in self._names}
            return
        try:
            for name in self._names if at_once else ():
                self.session(name)
        except BaseException:
            self._close_sessions()
            raise

    def __contains__(self, name: str) -> bool:
        """Say whether the task has a part."""
        return name in self._names

    def session(self, name: str) -> Session:
        """Return the session of a part."""
        if name not in self._sessions:
            self._sessions[name] = self.graphs.open(name, self._options)
        return self._sessions[name]

    def signature(self, name: str) -> Signature:
        """Return what a part takes and gives.

        Raises:
            UsageError: The bundle does not say.
        """
        found = self.graphs.parts[name]
        if found is None:
            raise UsageError(f"nothing is known of the part '{name}'")
        return found

    def max_rows(self, name: str, wanted: int) -> int:
        """Return how many rows go through a part at a time: ``wanted``, or the most that its batch holds."""
        signature = self.signature(name)
        batch = signature.inputs[0].axes[0].text
        sizes: Dim | None = signature.dims.get(batch)
        return wanted if sizes is None else min(wanted, sizes.high)

    def close(self) -> None:
        """Close the sessions and the bundle; a second call does nothing."""
        self._close_sessions()
        self.graphs.close()

    def _close_sessions(self) -> None:
        for session in self._sessions.values():
            session.close()


def known_parts(parts: Mapping[str, Signature | None]) -> dict[str, Signature]:
    """Return the parts that say what they take and give; a plain .onnx file's part does not."""
    return {name: part for name, part in parts.items() if part is not None}
