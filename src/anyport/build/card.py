"""``MODEL_CARD.md``: what a person wants to know about a bundle, with YAML front matter for tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from anyport.bundle import stored_text
from anyport.bundle.disk import size_text
from anyport.bundle.manifest import files_outside
from anyport.verify import metric_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.bundle import Manifest


def model_card(manifest: Manifest, proof_lines: Sequence[str]) -> str:
    """Write the model card of a bundle.

    Args:
        manifest: Of the bundle, complete but for its files.
        proof_lines: What was compared, a line each.
    """
    facts = manifest.model
    lines = ["---", *_front_matter(manifest), "---", "", f"# {facts.name} {facts.version}", ""]
    if facts.description:
        lines += [facts.description, ""]
    for name, part in manifest.parts.items():
        lines += [f"## Part `{name}`", "", "| tensor | | |", "|---|---|---|"]
        lines += [f"| `{n}` | input | `{text}` |" for n, text in part.inputs.items()]
        lines += [f"| `{n}` | output | `{text}` |" for n, text in part.outputs.items()]
        lines += [f"| `{n}` | dim | `{text}` |" for n, text in part.dims.items()]
        lines.append("")
    lines += _weight_lines(manifest)
    lines += ["## Proof", "", *(f"- {line}" for line in proof_lines), ""]
    where = " --weights DIR" if files_outside(manifest) else ""
    place = " beside its checkpoint" if where else ""
    command = f"anyport verify {facts.name}.port{where}"
    lines += [f"Re-verify it anywhere{place}, without PyTorch: `{command}`.", ""]
    lines += _lossy_lines(manifest)
    lines += ["## Made with", "", *_table(manifest.provenance.packages), ""]
    return "\n".join(lines)


def _weight_lines(manifest: Manifest) -> list[str]:
    """Say in which types the weights of each graph are stored."""
    lines = [
        f"- `{part}`, `{name}`: {stored_text(graph.stored)}"
        for name, variant in manifest.variants.items()
        for part, graph in variant.graphs.items()
        if graph.stored
    ]
    outside = files_outside(manifest)
    if outside:
        lines += [
            "",
            "These lie in the checkpoint and not in the bundle; `--weights DIR` names its folder:",
            "",
        ]
        lines += [f"- `{file}`, {size_text(size)}" for file, size in outside.items()]
    return ["## Weights", "", *lines, ""] if lines else []


def _lossy_lines(manifest: Manifest) -> list[str]:
    """Say what each lossy variant is worth, and how to find out what it is worth elsewhere."""
    found = [(name, one.metric) for name, one in manifest.variants.items() if one.metric is not None]
    if not found:
        return []
    lines = ["## Lossy variants", "", *(f"- `{name}`: {metric_line(metric)}" for name, metric in found), ""]
    command = f"anyport verify {manifest.model.name}.port --variant {found[0][0]}"
    return [*lines, f"Another processor may answer otherwise. Measure it on yours: `{command}`.", ""]


def _front_matter(manifest: Manifest) -> list[str]:
    facts = manifest.model
    tags = ["anyport", "onnx", *([manifest.task] if manifest.task else [])]
    entries: dict[str, object] = {
        "license": facts.license,
        "library_name": "anyport",
        "tags": tags,
        "name": facts.name,
        "version": facts.version,
        "author": facts.author,
        "created": facts.created,
        "trained_at": facts.trained_at,
        "source": manifest.provenance.source,
    }
    # a JSON value is a YAML value, and needs no quoting rules of its own
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items() if value]


def _table(packages: Mapping[str, str]) -> list[str]:
    return ["| package | version |", "|---|---|", *(f"| {n} | {v} |" for n, v in sorted(packages.items()))]
