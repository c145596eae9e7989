"""The table of verbs: a new one is a file with a ``command`` and a row here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb lives, and its line in ``anyport --help``."""

    module: str
    about: str


VERBS: Final[Mapping[str, Verb]] = {  # sorted; nothing is imported before it is asked for
    "advise": Verb("anyport.cli.advise", "Say where and in which form a bundle should run."),
    "bench": Verb("anyport.cli.bench", "Measure speed, memory and size of variants side by side."),
    "build": Verb("anyport.cli.build", "Make a proven bundle of a PyTorch model."),
    "compress": Verb("anyport.cli.compress", "Make an .onnx file smaller and faster, in INT8 or FP16."),
    "demo": Verb("anyport.cli.demo", "Verify and run the bundle that ships with anyport."),
    "export": Verb("anyport.cli.export", "Make a proven .onnx file of a PyTorch model."),
    "inspect": Verb("anyport.cli.inspect", "Show what a bundle or an .onnx file holds."),
    "pack": Verb("anyport.cli.pack", "Put a bundle into one zip file."),
    "plan": Verb("anyport.cli.plan", "Say what a build would need, before anything is loaded."),
    "recipes": Verb("anyport.cli.recipes", "List the model families that need no description."),
    "reweight": Verb("anyport.cli.reweight", "Put new weights under the graph of a bundle."),
    "run": Verb("anyport.cli.run", "Run a bundle on pictures or arrays."),
    "simplify": Verb("anyport.cli.simplify", "Simplify an .onnx file, proven equal and not slower."),
    "unpack": Verb("anyport.cli.unpack", "Make a folder of a bundle in a zip file."),
    "verify": Verb(
        "anyport.cli.verify", "Replay a bundle's proof, or compare an .onnx file with its source."
    ),
}
