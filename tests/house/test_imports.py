"""Who imports whom: the order of the rooms, the bar below which torch begins, and a light start."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from tests.house import tree

FORBIDDEN_NAMES: Final = {"utils", "util", "common", "misc", "core", "helpers", "helper", "base"}
# distribution -> import name, where they differ by more than a hyphen
_IMPORT_NAMES: Final = {"pillow": "PIL", "scikit-learn": "sklearn"}
_BELOW_ONLY: Final = {"diffusers", "onnx", "onnx_ir", "onnxscript", "safetensors", "torch", "transformers"}


def requirements(extra: str | None = None) -> set[str]:
    """Return the import names that the base install, or an extra, brings."""
    project = tree.project()["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    names = {line.split(">")[0].split("[")[0].strip() for line in lines}
    return {_IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def allowed(room: str) -> set[str]:
    """Return the third-party packages that a room may import."""
    above = requirements() - {"click"}
    if room == "cli":
        return {*above, *requirements("view"), "click", "rich"}
    if room == "recipe":
        return above | requirements("build") | requirements("edit") | requirements("text")
    if room in tree.BELOW_THE_BAR:
        return above | requirements("build")
    if room == "task":
        return above | requirements("text")
    return above


def may_import(room: str, target: str) -> bool:
    """Say whether a room may import a room, or a file at the top of the package."""
    if target in {room, "__version__", *tree.OPEN_TO_ALL} or room in {"", "__main__", "testing"}:
        return True
    if room in tree.IMPORT_ALL:
        return target != "cli"
    known = room in tree.ROOMS and target in tree.ROOMS
    return known and tree.ROOMS.index(target) < tree.ROOMS.index(room)


def own_imports() -> list[tree.Import]:
    every = (found for source in tree.package_files() for found in tree.imports(source))
    return [found for found in every if found.target.split(".")[0] == "anyport"]


def foreign_imports() -> list[tree.Import]:
    every = (found for source in tree.package_files() for found in tree.imports(source))
    ours = {"anyport", *sys.stdlib_module_names}
    return [found for found in every if found.target.split(".")[0] not in ours]


def test_every_file_is_in_a_known_room() -> None:
    known = {"", "__main__", "testing", *tree.OPEN_TO_ALL, *tree.ROOMS}
    strangers = [f.at(1) for f in tree.package_files() if f.room not in known]
    assert not strangers, f"house.md lists no such room: {strangers}"


def test_every_room_imports_only_rooms_above_it() -> None:
    wrong = []
    for found in own_imports():
        target = [*found.target.split("."), ""][1]
        if not may_import(found.source.room, target):
            wrong.append(f"{found.where} {found.source.room} imports {found.target}")
    assert not wrong, "\n".join(["", *wrong])


def test_verify_knows_a_runtime_only_as_a_protocol() -> None:
    wrong = [
        f"{found.where} {found.target}"
        for found in own_imports()
        if found.source.room == "verify"
        and found.target.startswith("anyport.runtime")
        and found.target != "anyport.runtime.session"
    ]
    assert not wrong


def test_the_open_files_import_only_each_other() -> None:
    wrong = [
        f"{found.where} {found.target}"
        for found in own_imports()
        if found.source.room in tree.OPEN_TO_ALL and found.target.split(".")[1] not in tree.OPEN_TO_ALL
    ]
    assert not wrong


def test_every_room_imports_only_packages_that_its_extra_installs() -> None:
    wrong = [
        f"{found.where} {found.source.room or 'anyport'} imports {found.target}"
        for found in foreign_imports()
        if found.source.room != "testing" and found.target.split(".")[0] not in allowed(found.source.room)
    ]
    assert not wrong, "\n".join(["", *wrong])


def test_nothing_above_the_bar_may_import_torch() -> None:
    for room in ("", *tree.OPEN_TO_ALL, *tree.ABOVE_THE_BAR, *tree.IMPORT_ALL):
        assert not allowed(room) & _BELOW_ONLY, room


def test_names_say_what_is_inside() -> None:
    vague = [f.at(1) for f in tree.all_files() if f.path.stem in FORBIDDEN_NAMES]
    vague += [str(p) for p in tree.PACKAGE.rglob("*") if p.is_dir() and p.name in FORBIDDEN_NAMES]
    assert not vague


@pytest.mark.parametrize("heavy", ["numpy", "onnx", "onnxruntime", "torch"])
def test_importing_anyport_is_light(heavy: str) -> None:
    assert tree.run_python(f"import sys, anyport; print({heavy!r} in sys.modules)") == "False"


def test_everything_above_the_bar_imports_where_torch_cannot() -> None:
    rooms = {"", *tree.OPEN_TO_ALL, *tree.ABOVE_THE_BAR, *tree.IMPORT_ALL}
    modules = [f"anyport.{f.module}".strip(".") for f in tree.package_files() if f.room in rooms]
    code = f"""
import importlib, sys
for name in {sorted(_BELOW_ONLY)!r}:
    sys.modules[name] = None  # importing it raises ImportError
for name in {modules!r}:
    importlib.import_module(name)
"""
    tree.run_python(code)


@pytest.mark.parametrize(
    ("room", "target", "expected"),
    [
        ("bundle", "tensors", True),
        ("runtime", "bundle", True),
        ("bundle", "runtime", False),
        ("verify", "build", False),
        ("build", "verify", True),
        ("cli", "build", True),
        ("report", "cli", False),
        ("task", "cli", False),
        ("errors", "bundle", False),
    ],
)
def test_the_order_of_the_rooms(room: str, target: str, expected: bool) -> None:
    assert may_import(room, target) is expected
