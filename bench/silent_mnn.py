"""Convert a file with MNN and run it: `python bench/silent_mnn.py MODEL.onnx IN.json OUT.json`.

In a process of its own, without a PATH: MNN's own command upgrades a package of the first pip that it finds.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Convert; then run every array of the input once, and write the answers under the same names."""
    model, given, answers = (Path(word) for word in sys.argv[1:])
    converted = model.with_suffix(".mnn")
    tools: Any = import_module("_tools")
    words = ["-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(converted), "--bizCode", "x"]
    tools.mnnconvert(["mnnconvert", *words])
    net: Any = import_module("MNN.nn").load_module_from_file(str(converted), ["x"], ["y"])
    expressions: Any = import_module("MNN.expr")
    found = {}
    for name, numbers in json.loads(given.read_text()).items():
        array = np.array(numbers, np.float32)
        value = expressions.const(array, list(array.shape), expressions.NCHW)
        found[name] = np.array(net.forward([value])[0].read()).tolist()
    answers.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
