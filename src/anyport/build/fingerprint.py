"""What decides the parts of a build: where it is the same, what an earlier build found of them holds.

Not asked is what decides nothing of them: the output's name, ``--force``, variants that are made of parts
that are proven, the time of day.
"""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import torch

from anyport.bench.machine import cpu_flags, package_versions
from anyport.build.block_proving import planned
from anyport.build.parts import PROOF_BYTES, graph_metadata, signature_words
from anyport.build.plan import UNPROVEN_TASK
from anyport.build.provenance import build_packages
from anyport.build.streams import open_streams
from anyport.bundle.shards import sampled_digest
from anyport.source.streaming import named_weights

if TYPE_CHECKING:
    from anyport.build.plan import BuildPlan
    from anyport.build.streams import Stream
    from anyport.cases import Case
    from anyport.recipe import Model, Part

_MORE_PACKAGES: Final = ("diffusers", "pillow", "safetensors", "tokenizers")
_INDEX: Final = "model_index.json"  # of diffusers: the components are folders beside it


def fingerprint(model: Model, plan: BuildPlan) -> dict[str, str]:
    """Return what decides the parts of a build, and the answers of the original program.

    Cost: the headers of the checkpoint and a page of each weight; the weights of parts that are loaded.

    Args:
        model: With the user's words laid over it.
        plan: Of the build.

    Returns:
        What -> SHA-256 of it in canonical JSON.

    Raises:
        SourceError: The checkpoint does not fit the module.
    """
    sections = {
        "the model": _model(model, plan),
        "the options": _options(model, plan),
        "the packages": _packages(),
        "the processor": _processor(),
        "the weights": _weights(model),
    }
    return {name: _digest(words) for name, words in sections.items()}


def _digest(words: Any) -> str:  # noqa: ANN401 - JSON has any type
    return hashlib.sha256(json.dumps(words, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _packages() -> dict[str, str]:
    sources = {"anyport's own sources": _own_sources(), "python": platform.python_version()}
    return build_packages() | package_versions(_MORE_PACKAGES) | sources


@cache
def _own_sources() -> str:
    """Return a digest of the package: its version stays while somebody works on it. Takes 10 ms."""
    root = Path(__file__).resolve().parents[1]
    return _digest({path.relative_to(root).as_posix(): _file(path) for path in root.rglob("*.py")})


def _processor() -> list[str]:
    """Return which kernels compute: a verdict's figures are theirs, and the report names one processor."""
    return [platform.system(), platform.machine(), *cpu_flags()]


def _options(model: Model, plan: BuildPlan) -> dict[str, Any]:
    made, how = plan.description.build, plan.settings
    return {
        "weights": made.weights,
        "opset": made.opset,
        "storage": made.storage,
        "fix": dict(made.fix),
        "max_cases": how.max_cases,
        "max_case_bytes": how.max_case_bytes,
        "seed": how.seed,
        "gates": [how.gates.rtol, how.gates.atol, how.gates.mse, how.gates.l2],
        "allow": sorted(how.allow - {UNPROVEN_TASK}),
        "libraries": [_file(path) for path in how.libraries],
        "proof_bytes": PROOF_BYTES // len(model.parts),
    }


def _model(model: Model, plan: BuildPlan) -> dict[str, Any]:
    return {
        "task": model.task,
        "settings": msgspec.to_builtins(model.settings),
        "assets": {name: hashlib.sha256(content).hexdigest() for name, content in model.assets.items()},
        "parts": [_part(model, part, plan) for part in model.parts],
    }


def _part(model: Model, part: Part, plan: BuildPlan) -> dict[str, Any]:
    metadata = graph_metadata(plan, model, part)
    if plan.settings.source_date_epoch is None:
        del metadata["created"]  # the time of day
    return {
        "name": part.name,
        "signature": signature_words(part),
        "in_order": part.outputs_in_order,
        "cures": part.cures,
        "max_case_bytes": part.max_case_bytes,
        "blocks": part.blocks,
        "metadata": metadata,
        # the arrays of a recipe's cases follow from the weights, and need not be the same to the last bit
        "cases": _cases(part, plan) if part.stored is not None else [],
    }


def _cases(part: Part, plan: BuildPlan) -> list[Any]:
    cases = planned(part, plan.settings)[1].cases
    is_users = plan.description.cases is not None
    words = [[one.name, one.kind, dict(one.sizes), msgspec.to_builtins(one.fills)] for one in cases]
    return [words, [_arrays(one) for one in cases] if is_users else []]


def _arrays(case: Case) -> list[list[Any]]:
    """Return what the user gave: it follows from nothing else."""
    arrays = {key: np.ascontiguousarray(array) for key, array in sorted(case.stored.items())}
    return [
        [key, str(array.dtype), list(array.shape), hashlib.sha256(array.data).hexdigest()]
        for key, array in arrays.items()
    ]


def _weights(model: Model) -> dict[str, Any]:
    pages = cache(sampled_digest)
    found: dict[str, Any] = {name: _stored(one, pages) for name, one in open_streams(model).items()}
    for part in model.parts:
        if part.stored is None:
            found[part.name] = {name: _numbers(weight) for name, weight in named_weights(part.module)}
        else:
            found[f"{part.name}: settings"] = [_file(path) for path in _configs(part.stored.folder)]
    return found


def _stored(stream: Stream, pages: Any) -> dict[str, Any]:  # noqa: ANN401 - a cached function
    files = stream.source.checkpoint.files
    return {
        "files": {
            path.relative_to(stream.root).as_posix(): [path.stat().st_size, pages(path)] for path in files
        },
        "adapters": [[_file(one.path), one.scale] for one in stream.adapters],
    }


def _configs(folder: Path) -> list[Path]:
    """Return what says how the modules are made: they are not in the checkpoint's weights."""
    found = [*folder.glob("*.json")]
    if (folder.parent / _INDEX).is_file():
        found += [*folder.parent.glob("*.json"), *folder.parent.glob("*/*.json")]
    return sorted(path for path in set(found) if path.is_file())


def _file(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _numbers(weight: torch.Tensor) -> str:
    content = weight.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().data).hexdigest()
