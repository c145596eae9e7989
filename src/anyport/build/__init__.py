"""The whole way from a PyTorch model to a proven bundle or .onnx file."""

from anyport.build.description import Description, describe, read_description
from anyport.build.plain import ExportResult, VerifyRequest, export_plain, verify_plain
from anyport.build.plan import BuildPlan, BuildSettings, locate
from anyport.build.steps import BuildResult, build

__all__ = [
    "BuildPlan",
    "BuildResult",
    "BuildSettings",
    "Description",
    "ExportResult",
    "VerifyRequest",
    "build",
    "describe",
    "export_plain",
    "locate",
    "read_description",
    "verify_plain",
]
