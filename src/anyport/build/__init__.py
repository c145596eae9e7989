"""The whole way from a PyTorch model to a proven bundle or .onnx file.

Nothing is imported before it is asked for: new weights (`reweight`) need no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.build.costs import BuildCost
    from anyport.build.description import Description, describe, read_description
    from anyport.build.estimate import estimate_build
    from anyport.build.plain import ExportResult, VerifyRequest, export_plain, verify_plain
    from anyport.build.plan import BuildPlan, BuildSettings, locate
    from anyport.build.reweighting import Reweighted, ReweightSettings, reweight
    from anyport.build.steps import BuildResult, build, check_words

__all__ = [
    "BuildCost",
    "BuildPlan",
    "BuildResult",
    "BuildSettings",
    "Description",
    "ExportResult",
    "ReweightSettings",
    "Reweighted",
    "VerifyRequest",
    "build",
    "check_words",
    "describe",
    "estimate_build",
    "export_plain",
    "locate",
    "read_description",
    "reweight",
    "verify_plain",
]

_HOMES: Final[Mapping[str, str]] = {
    "BuildCost": "anyport.build.costs",
    "BuildPlan": "anyport.build.plan",
    "BuildResult": "anyport.build.steps",
    "BuildSettings": "anyport.build.plan",
    "Description": "anyport.build.description",
    "ExportResult": "anyport.build.plain",
    "ReweightSettings": "anyport.build.reweighting",
    "Reweighted": "anyport.build.reweighting",
    "VerifyRequest": "anyport.build.plain",
    "build": "anyport.build.steps",
    "check_words": "anyport.build.steps",
    "describe": "anyport.build.description",
    "estimate_build": "anyport.build.estimate",
    "export_plain": "anyport.build.plain",
    "locate": "anyport.build.plan",
    "read_description": "anyport.build.description",
    "reweight": "anyport.build.reweighting",
    "verify_plain": "anyport.build.plain",
}


def __getattr__(name: str) -> object:
    """Import what is asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'anyport.build' has no attribute '{name}'")
