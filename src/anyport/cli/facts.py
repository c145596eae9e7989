"""What `anyport inspect` shows, as a record for programs and as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from anyport.bundle import MetricEntry, open_bundle, read_proof, stored_text
from anyport.bundle.disk import size_text
from anyport.cli.options import table
from anyport.errors import UsageError, require
from anyport.verify import metric_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.bundle import Bundle

_MAX_OPERATORS: Final = 12


def facts_of(path: Path) -> dict[str, Any]:
    """Describe a bundle from its manifest and proof, or an .onnx file from its header.

    Raises:
        BundleError: It is no bundle, or a damaged one.
        InputError: It is no .onnx file.
        MissingExtraError: An .onnx file needs the package onnx.
    """
    import msgspec

    if path.suffix == ".onnx":
        from anyport.graph.inspect import inspect_onnx

        found: dict[str, Any] = msgspec.to_builtins(inspect_onnx(path))
        return {"kind": "onnx", "path": str(path)} | found
    with open_bundle(path) as bundle:
        return {"kind": "bundle", "path": str(path)} | _bundle_facts(bundle)


def _bundle_facts(bundle: Bundle) -> dict[str, Any]:
    import msgspec

    record: dict[str, Any] = msgspec.to_builtins(bundle.manifest)
    sizes = {entry["path"]: entry["size_bytes"] for entry in record["files"]}
    for variant in record["variants"].values():
        for graph in variant["graphs"].values():
            graph["size_bytes"] = sizes[graph["file"]] + sizes.get(graph["weights"], 0)
    proof = read_proof(bundle)
    record["proof"] = {part: [case.name for case in cases] for part, cases in proof.parts.items()}
    record["size_bytes"] = sum(sizes.values())
    return record


def lines_of(record: Mapping[str, Any]) -> list[str]:
    """Lay the record out for people."""
    return _onnx_lines(record) if record["kind"] == "onnx" else _bundle_lines(record)


def _onnx_lines(record: Mapping[str, Any]) -> list[str]:
    opsets = ", ".join(f"{domain} {version}" for domain, version in record["opsets"].items())
    rows = [*_tensor_rows(record), ("opset", opsets)]
    rows.append(("nodes", f"{record['n_nodes']}: {_operators(record['operators'])}"))
    rows.append(("weights", f"{record['n_parameters']} parameters"))
    if record["stored"]:
        rows.append(("stored", stored_text(record["stored"])))
    rows += [("", f"{size_text(size)} of {file}") for file, size in record["weights_files"].items()]
    rows.append(("file", f"{size_text(record['size_bytes'])}, IR version {record['ir_version']}"))
    rows.append(("producer", record["producer"] or "not said"))
    rows += [("metadata", f"{key} = {value}") for key, value in record["metadata"].items()]
    return table(rows).splitlines()


def _bundle_lines(record: Mapping[str, Any]) -> list[str]:
    model = record["model"]
    rows = [("model", f"{model['name']} {model['version']}"), ("task", record["task"] or "tensors")]
    for name in ("description", "author", "license", "created", "trained_at"):
        rows += [(name, model[name])] if model[name] else []
    for name, part in record["parts"].items():
        rows += [("part", name), *_tensor_rows(part)]
        cases = record["proof"].get(name, [])
        rows.append(("proof", f"{len(cases)} cases: {_listed(cases)}"))
    for name, variant in record["variants"].items():
        rows += _variant_rows(name, variant, is_default=name == record["default_variant"])
    made = record["provenance"]
    rows += [("source", made["source"]), ("command", made["command"])]
    rows += [("package", f"{name} {version}") for name, version in made["packages"].items()]
    rows.append(("bundle", f"{len(record['files'])} files, {size_text(record['size_bytes'])}"))
    return table(rows).splitlines()


def _variant_rows(name: str, variant: Mapping[str, Any], *, is_default: bool) -> list[tuple[str, str]]:
    words = [name, "proven" if variant["proven"] else "NOT PROVEN", *(["default"] if is_default else [])]
    rows = [("variant", ", ".join(words) + (f": {variant['note']}" if variant["note"] else ""))]
    if variant["metric"] is not None:
        rows.append(("metric", metric_line(MetricEntry(**variant["metric"]))))
    for part, graph in variant["graphs"].items():
        size = size_text(graph["size_bytes"])
        rows += [
            ("graph", f"{part}: opset {graph['opset']}, {graph['n_parameters']} parameters, {size}"),
            ("nodes", f"{graph['n_nodes']}: {_operators(graph['operators'])}"),
        ]
        if graph["stored"]:
            rows.append(("stored", stored_text(graph["stored"])))
        rows += [("outside", f"{size_text(s['size_bytes'])} of {s['file']}") for s in graph["shards"]]
    return rows


def _tensor_rows(tensors: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("input", f"{name}  {notation}") for name, notation in tensors["inputs"].items()]
    rows += [("output", f"{name}  {notation}") for name, notation in tensors["outputs"].items()]
    return rows + [("dim", f"{name}  {sizes}") for name, sizes in tensors.get("dims", {}).items()]


def _operators(operators: Mapping[str, int]) -> str:
    ordered = sorted(operators.items(), key=lambda entry: (-entry[1], entry[0]))
    return _listed([f"{name} {n}" for name, n in ordered])


def _listed(words: list[str]) -> str:
    more = len(words) - _MAX_OPERATORS
    return ", ".join(words[:_MAX_OPERATORS]) + (f" and {more} more" if more > 0 else "")


def view(path: Path, part: str | None, variant: str | None) -> None:
    """Show a graph in netron until Ctrl-C.

    Raises:
        MissingExtraError: The package netron is not installed.
        UsageError: There are several parts and none is named.
    """
    netron = require("netron", extra="view", step="--netron")
    if path.suffix == ".onnx":
        netron.start(str(path))
        netron.wait()
        return
    with open_bundle(path) as bundle:
        names = list(bundle.manifest.parts)
        if part is None and len(names) > 1:
            raise UsageError(f"the bundle has {len(names)} parts: {', '.join(names)}", do="add --part NAME")
        netron.start(str(bundle.graph_file(part or names[0], variant).path))
        netron.wait()
