"""The example's own script, for folders of Qwen-Image-Edit of the published size, without weights."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from tests.house import tree

if TYPE_CHECKING:
    from pathlib import Path


def script() -> Any:
    """Return examples/qwen_image_edit/make_seeded.py as a module."""
    path = tree.ROOT / "examples" / "qwen_image_edit" / "make_seeded.py"
    spec = importlib.util.spec_from_file_location("make_seeded_edit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


def write_published(folder: Path) -> Path:
    """Write configurations and indexes."""
    made = script()
    made.write_outline(folder, made.PUBLISHED)
    return folder
