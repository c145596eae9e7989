from __future__ import annotations

import json

import msgspec

from anyport.build.card import model_card
from anyport.bundle import (
    FORMAT,
    GraphEntry,
    Manifest,
    MetricEntry,
    ModelFacts,
    PartEntry,
    Provenance,
    VariantEntry,
)


def manifest(**facts: str) -> Manifest:
    return Manifest(
        format=FORMAT,
        model=ModelFacts(name="m", version="1.0.0", **facts),
        task="classify",
        settings={},
        parts={"network": PartEntry({"x": "float32[n]"}, {"y": "float32[n]"}, {"n": "1..4"})},
        variants={},
        default_variant="fp32",
        provenance=Provenance("model.py:load", "anyport build", {"torch": "2.13.0"}, "x86_64", "3.11"),
        files=[],
    )


def test_the_front_matter_is_yaml_whatever_the_words() -> None:
    author = 'Ann: "the one" — #1'
    lines = model_card(manifest(author=author, license="MIT"), ["good"]).splitlines()
    front = lines[1 : lines.index("---", 1)]
    entries = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in front)}
    assert entries["author"] == author
    assert entries["tags"] == ["anyport", "onnx", "classify"]
    assert "trained_at" not in entries


def test_the_card_shows_tensors_proof_and_packages() -> None:
    text = model_card(manifest(description="Reads."), ["`network`: fine"])
    for line in (
        "# m 1.0.0",
        "Reads.",
        "| `x` | input | `float32[n]` |",
        "- `network`: fine",
        "| torch | 2.13.0 |",
    ):
        assert line in text.splitlines()


def test_the_card_says_in_which_types_weights_are_stored() -> None:
    assert "## Weights" not in model_card(manifest(), [])
    graph = GraphEntry(
        "model.onnx", None, None, 20, 1, {"Add": 1}, 9, stored={"bfloat16": 18_000, "int64": 8}
    )
    variants = {"fp32": VariantEntry({"network": graph}, [], proven=True)}
    lines = model_card(msgspec.structs.replace(manifest(), variants=variants), []).splitlines()
    place = lines.index("## Weights")
    assert lines[place + 2] == "- `network`, `fp32`: bfloat16 18.0 kB, int64 8 bytes"
    assert place < lines.index("## Proof")


def test_the_card_says_what_a_lossy_variant_is_worth_and_where() -> None:
    assert "## Lossy variants" not in model_card(manifest(), [])
    metric = MetricEntry("network", "y", "top-1", 0.996, 0.95, 256, ["avx2"], "accuracy 98.9 % -> 98.8 %")
    variants = {"int8": VariantEntry({}, [], proven=True, metric=metric)}
    lines = model_card(msgspec.structs.replace(manifest(), variants=variants), []).splitlines()
    place = lines.index("## Lossy variants")
    assert lines[place + 2 : place + 5] == [
        (
            "- `int8`: accuracy 98.9 % -> 98.8 %; 'y' top-1 agreement 99.6 %, 95 % needed; "
            "256 samples, measured on avx2"
        ),
        "",
        (
            "Another processor may answer otherwise. Measure it on yours: "
            "`anyport verify m.port --variant int8`."
        ),
    ]
