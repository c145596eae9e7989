"""What the tests of this room share: a plan for a model of the zoo, and quick settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyport.build import BuildPlan, BuildSettings, describe

ZOO = Path(__file__).parent
QUICK = BuildSettings(max_case_bytes=4 << 20, source_date_epoch=1_700_000_000, command=("anyport", "build"))

TABLES: dict[str, dict[str, Any]] = {
    "image_and_text": {
        "inputs": {
            "pixel_values": "float32[batch, 3, 32, 32]",
            "input_ids": "int64[batch, sequence] 0..49",
        },
        "outputs": {"embedding": "float32[batch, 16]"},
        "dims": {"batch": "1..16", "sequence": "1..24"},
    },
    "masked_encoder": {
        "inputs": {
            "input_ids": "int64[batch, sequence] 0..39",
            "attention_mask": "int64[batch, sequence] 0..1",
        },
        "outputs": {"encoded": "float32[batch, sequence, 16]"},
        "dims": {"batch": "1..8", "sequence": "1..32"},
    },
    "dense": {
        "inputs": {"pixel_values": "float32[batch, 3, height, width]"},
        "outputs": {
            "small": "float32[batch, 2, height//8, width//8]",
            "large": "float32[batch, 2, height, width]",
        },
        "dims": {"batch": "1..4", "height": "16..96:8", "width": "16..96:8"},
    },
    "scores_and_choice": {
        "inputs": {"features": "float32[batch, 12]"},
        "outputs": {"scores": "float32[batch, 7]", "best": "int64[batch]"},
        "dims": {"batch": "1..32"},
    },
    "attends": {
        "inputs": {"x": "float32[batch, tokens, 16]"},
        "outputs": {"y": "float32[batch, tokens, 16]"},
        "dims": {"batch": "1..4", "tokens": "1..64"},
    },
}
TABLES_OF_RESNETS: dict[str, dict[str, Any]] = {
    "tiny_resnet": {
        "inputs": {"pixel_values": "float32[batch, 3, 32, 32]"},
        "outputs": {"logits": "float32[batch, 5]"},
        "dims": {"batch": "1..8"},
    },
    "resnet_18": {
        "inputs": {"pixel_values": "float32[batch, 3, 224, 224]"},
        "outputs": {"logits": "float32[batch, 1000]"},
        "dims": {"batch": "1..4"},
    },
}
SMALL = {
    "inputs": {"x": "float32[batch, 4]"},
    "outputs": {"y": "float32[batch, 4]"},
    "dims": {"batch": "1..8"},
}


def plan_for(name: str, output: Path, how: BuildSettings = QUICK, **tables: Any) -> BuildPlan:
    """Return the plan for one model of the zoo."""
    words = (
        {"model": {"source": f"zoo.py:{name}", "name": name.replace("_", "-")}}
        | (TABLES | TABLES_OF_RESNETS).get(name, SMALL)
        | tables
    )
    return BuildPlan(describe(words, "test"), ZOO, output, how)


def silent(_step: str, _text: str) -> None:
    """Show no progress."""
