"""``--simplify``: a proven graph is simplified in its place, and held against PyTorch's own answers again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from anyport.build.description import NO_SIMPLIFIER
from anyport.build.proving import recorded_equality
from anyport.bundle import Step
from anyport.graph.expectations import expected_weights
from anyport.graph.initializers import read_initializers
from anyport.graph.simplifiers import SIMPLIFIERS, simplifiers_named
from anyport.graph.simplify import SimplifySettings, simplify_graph
from anyport.graph.storing import read_graph
from anyport.verify import account_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.build.proving import Recorder
    from anyport.graph.capture import Capture
    from anyport.graph.simplification import Simplification
    from anyport.graph.storing import Graph
    from anyport.verify import Gates, Verdict

EVERY_SIMPLIFIER: Final = "auto"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a part whose export was proven.

    Attributes:
        captured: The part as it was exported.
        recorder: PyTorch's answers, as far as they were kept.
        gates: The user's own limits.
    """

    captured: Capture
    recorder: Recorder
    gates: Gates


def simplify_settings(words: str) -> SimplifySettings | None:
    """Read ``[build] simplify``; ``None`` leaves the export alone.

    Raises:
        UsageError: There is no such simplifier.
    """
    if words == NO_SIMPLIFIER:
        return None
    tools = tuple(SIMPLIFIERS.values()) if words == EVERY_SIMPLIFIER else simplifiers_named(words.split(","))
    return SimplifySettings(tools=tools)


@dataclass(frozen=True, slots=True)
class Simplified:
    """A graph after it was simplified.

    Attributes:
        part: The part's name.
        graph: Its files.
        found: What was kept of what was tried.
    """

    part: str
    graph: Graph
    found: Simplification

    @property
    def step(self) -> Step:
        """What a manifest keeps of it; what was measured goes to the report, which another machine lacks."""
        kept = self.found.kept_attempt
        settings = {
            "part": self.part,
            "tool": kept.tool,
            "version": kept.version,
            "optimization": self.found.optimization,
        }
        n_after = self.graph.n_nodes if kept.n_nodes_after is None else kept.n_nodes_after
        n_nodes = f"{kept.n_nodes_before} -> {n_after} nodes"
        return Step(
            "simplify", settings, f"{n_nodes}, proven equal" if self.found.proven else "nothing proven"
        )


def simplify_proven(
    graph: Graph,
    verdict: Verdict,
    known: Known,
    settings: SimplifySettings,
    progress: Callable[[str, str], None],
) -> Simplified:
    """Simplify a graph in its place, and hold what is kept against the answers of PyTorch.

    Args:
        graph: In the folder of the build.
        verdict: What the comparison of the graph as exported found.
        known: What the result is held against.
        settings: From `simplify_settings`.
        progress: Called with one line when it is done.
    """
    expected = expected_weights(known.captured.program)
    equality = replace(
        recorded_equality(known.recorder, verdict, known.gates),
        account=lambda path: account_weights(expected, read_initializers(path)).leg(),
    )
    found = simplify_graph(graph.path, equality, settings)
    progress("simplify", found.summary())
    return Simplified(verdict.part.name, replace(read_graph(graph.path), warnings=graph.warnings), found)
