"""Runs one simplifier on one file: ``limited.py … simplifier_program.py TOOL IN.onnx OUT.onnx``.

Never imported by anyport: it is started by `anyport.graph.isolation`, because simplifiers crash, hang, and
take up to eight times the size of the model (measured with onnxsim 0.8.1 and onnxslim 0.1.98).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOLS: Final[Mapping[str, tuple[str, str]]] = {  # name -> module and function; sorted
    "onnxscript": ("onnxscript.optimizer", "optimize"),
    "onnxsim": ("onnxsim", "simplify"),
    "onnxslim": ("onnxslim", "slim"),
}


def simplify(tool: str, model: Any) -> Any:
    """Let a tool rewrite a model with its defaults: none of them compares the result, anyport does.

    onnxsim returns a pair whose second element says True, and means that nothing was compared.
    """
    module, function = TOOLS[tool]
    found = getattr(import_module(module), function)(model)
    return found[0] if isinstance(found, tuple) else found


def main(words: list[str]) -> None:
    """Read the model with its weights, simplify it, write it into one file."""
    tool, source, target = words
    onnx = import_module("onnx")
    onnx.save(simplify(tool, onnx.load(source)), target)


if __name__ == "__main__":
    main(sys.argv[1:])
