"""ResNet-18 at its real size and seeded, from a checkpoint folder to labels: the recipe's whole way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import transformers

import anyport
from anyport.build import BuildPlan, BuildSettings, build, describe
from anyport.bundle import open_bundle
from anyport.runtime import open_session
from anyport.verify import Status, verify_bundle
from tests.build.building import silent

if TYPE_CHECKING:
    from pathlib import Path

PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def checkpoint(folder: Path) -> Path:
    """Save a seeded ResNet-18, its BatchNorm as after some training."""
    torch.manual_seed(18)
    config = transformers.ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=10,
    )
    model = transformers.ResNetForImageClassification(config)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.mark.slow
def test_a_checkpoint_folder_becomes_a_bundle_that_labels_pictures(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "resnet-18")
    words = {"model": {"source": str(folder), "license": "Apache-2.0"}}
    settings = BuildSettings(max_cases=9, max_case_bytes=8 << 20)
    result = build(BuildPlan(describe(words, "test"), tmp_path, tmp_path / "r.port", settings), silent)
    [verdict] = result.verdicts
    assert verdict.status is Status.PASS
    assert verdict.leg("weights").line == "102 of 102 weights found"
    with open_bundle(result.path) as bundle:
        assert bundle.manifest.model.name == "resnet-18"
        assert bundle.manifest.task == "classify"
        assert bundle.manifest.provenance.source == "resnet-18"
        assert dict(bundle.manifest.parts["network"].dims) == {"batch": "1..64"}
        assert [v.status for v in verify_bundle(bundle, open_session)] == [Status.PASS]
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    with anyport.open_task(result.path) as task:
        first, second = task.classify([picture, picture[::-1].copy()], top=3)
    assert first.label.startswith("LABEL_")
    assert len(second.top) == 3
    assert np.isclose(first.scores.sum(), 1)
