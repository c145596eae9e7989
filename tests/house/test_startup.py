"""`anyport --help` starts light: its imports are counted here, its time is measured by bench/startup.py."""

from __future__ import annotations

import json
from typing import Final

import pytest

from tests.house import tree

MAX_MODULES: Final = 150  # click and what it needs of the standard library; typer with rich is at about 600
MAX_TASK_MODULES: Final = 320  # 264 here, 84 of them numpy's: 186 ms CPU above the bare interpreter
HEAVY: Final = {"PIL", "msgspec", "numpy", "onnx", "onnxruntime", "rich", "torch", "transformers"}
_HELP: Final = """
import sys
before = set(sys.modules)
sys.argv = ["anyport", *{words!r}]
from anyport.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
import json
print("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""


def imported_by(*words: str) -> list[str]:
    """Return the modules that a command imports beyond those of the bare interpreter."""
    code = _HELP.replace("{words!r}", repr(words))
    modules: list[str] = json.loads(tree.run_python(code).splitlines()[-1])
    return modules


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("--version",), ("build", "--help")])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    found = {name.partition(".")[0] for name in imported_by(*words)}
    assert not found & HEAVY


_TASKS: Final = """
import sys
before = set(sys.modules)
from anyport.task import TASKS, task_module
for name in TASKS:
    task_module(name)
import json
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_tasks_import_no_runtime_and_nothing_that_builds() -> None:
    modules: list[str] = json.loads(tree.run_python(_TASKS).splitlines()[-1])
    found = {name.partition(".")[0] for name in modules}
    assert {"PIL", "msgspec", "numpy"} <= found
    assert not found & {"onnx", "onnxruntime", "tokenizers", "torch", "transformers"}
    assert len(modules) <= MAX_TASK_MODULES, f"{len(modules)} modules: {modules}"


def test_help_imports_few_modules() -> None:
    modules = imported_by("--help")
    assert len(modules) <= MAX_MODULES, f"{len(modules)} modules: {modules}"
