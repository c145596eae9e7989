"""The table of tasks, and opening a bundle as its task."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import anyport
from anyport.bundle import PartEntry
from anyport.errors import BundleError, SessionError, UsageError
from anyport.task import TASKS, check_settings, task_module
from anyport.task.classify import Classifier
from anyport.task.tensors import TensorTask
from tests.house import tree
from tests.runtime import networks
from tests.runtime.externalgraphs import X, external_bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_the_table_is_sorted_and_every_row_imports() -> None:
    assert list(TASKS) == sorted(TASKS)
    for name in TASKS:
        module = task_module(name)
        assert module.Options().__struct_fields__


def test_a_bundle_opens_as_its_task(tmp_path: Path) -> None:
    with anyport.open_task(networks.corners_bundle(tmp_path)) as task:
        assert isinstance(task, Classifier)


def test_a_bundle_without_a_task_takes_tensors(tmp_path: Path) -> None:
    part = PartEntry({"x": "float32[batch, 3]"}, {"y": "float32[batch, 3]"}, {"batch": "1..8"})
    words = networks.Words(task=None, settings={}, part=part)
    path = networks.bundle(tmp_path / "a.port", networks.affine(tmp_path / "a.onnx"), words)
    for place in (path, str(path), tmp_path / "a.onnx"):
        with anyport.open_task(place) as task:
            assert isinstance(task, TensorTask)


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    words = replace(networks.Words(), task="clasify")
    path = networks.bundle(tmp_path / "c.port", networks.corners(tmp_path / "c.onnx"), words)
    with pytest.raises(UsageError, match=r"there is no task 'clasify' \(did you mean 'classify'\?\)"):
        anyport.open_task(path)
    with pytest.raises(UsageError, match="there is no task 'x'"):
        check_settings("x", {}, {})


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        anyport.open_task(tmp_path / "nope.port")


def test_tasks_start_without_what_builds_bundles() -> None:
    """How long it takes is measured by bench/startup.py."""
    modules = [entry.module for entry in TASKS.values()]
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(sorted({{"onnx", "onnxruntime", "tokenizers", "torch", "transformers"}} & set(sys.modules)))
"""
    assert tree.run_python(code) == "[]"


def test_the_folder_of_a_checkpoint_is_named_beside_the_options(tmp_path: Path) -> None:
    bundle = external_bundle(tmp_path)
    feeds = tmp_path / "x.npy"
    np.save(feeds, X)
    with anyport.open_task(bundle, weights=tmp_path / "checkpoint") as task:
        assert task.answer([f"x={feeds}"], {}).lines
    with (
        anyport.open_task(bundle) as task,
        pytest.raises(SessionError, match="weights are not in the bundle"),
    ):
        task.answer([f"x={feeds}"], {})
