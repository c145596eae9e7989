"""The variant with fused attention: kept where it is faster, proven, with the weights of the plain one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anyport.build import build, fusing, reweight
from anyport.build.fusing import FUSED_VARIANT, race_attention
from anyport.bundle import open_bundle
from anyport.errors import UsageError
from anyport.graph.attention import AttentionSite
from anyport.runtime import open_session
from anyport.verify import Status, verify_bundle
from tests.build.building import plan_for

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import BuildResult

FUSED = {"attention": "fused"}


def faster(_site: AttentionSite) -> float:
    return 2.5


def slower(_site: AttentionSite) -> float:
    return 0.9


def built(folder: Path, name: str = "attends") -> tuple[BuildResult, list[str]]:
    told: list[str] = []
    plan = plan_for(name, folder / "m.port", build=FUSED)
    result = build(plan, lambda step, text: told.append(f"{step}: {text}"))
    return result, [line for line in told if line.startswith("attention")]


def test_the_fused_variant_is_proven_and_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "race_attention", faster)
    result, told = built(tmp_path)
    assert told == [
        "attention: network   1 of 1 sites fused, proven equal   2.50x at 1024 tokens",
    ]
    manifest = result.manifest
    assert (list(manifest.variants), manifest.default_variant) == (["fp32", FUSED_VARIANT], FUSED_VARIANT)
    plain, fused = (manifest.variants[name].graphs["network"] for name in ("fp32", FUSED_VARIANT))
    assert (plain.runtime, fused.runtime) == (None, "onnxruntime")
    assert fused.weights == plain.weights
    assert fused.file == "parts/network/fp32/onnxruntime.onnx"
    assert fused.operators["com.microsoft::MultiHeadAttention"] == 1
    assert "Softmax" in plain.operators
    assert manifest.variants[FUSED_VARIANT].proven
    assert [step.verb for step in manifest.variants[FUSED_VARIANT].steps] == ["export", "attention"]
    with open_bundle(result.path) as bundle:
        bundle.check()
        for variant in manifest.variants:
            assert [v.status for v in verify_bundle(bundle, open_session, variant=variant)] == [Status.PASS]


def test_what_is_slower_here_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "race_attention", slower)
    result, told = built(tmp_path)
    assert told == ["attention: network stays plain: one operator for it is not faster here"]
    assert (list(result.manifest.variants), result.manifest.default_variant) == (["fp32"], "fp32")
    assert not list(result.path.rglob("onnxruntime.onnx"))


def test_wrong_attention_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention of another scale answers something else, which the recorded answers show."""
    right = fusing.fuse_attention

    def wrong(path: Path, sites: list[AttentionSite], output: Path) -> int:
        swapped = [replace(one, n_heads=one.n_heads * 2, head_size=one.head_size // 2) for one in sites]
        swapped = [replace(one, value_size=one.value_size // 2) for one in swapped]
        return right(path, swapped, output)

    monkeypatch.setattr(fusing, "race_attention", faster)
    monkeypatch.setattr(fusing, "fuse_attention", wrong)
    result, told = built(tmp_path)
    [line] = told
    assert line.startswith("attention: network stays plain: ")
    assert list(result.manifest.variants) == ["fp32"]
    assert not list(result.path.rglob("onnxruntime.onnx"))


def test_a_model_without_attention_has_no_such_variant(tmp_path: Path) -> None:
    result, told = built(tmp_path, "image_and_text")
    assert told == []
    assert list(result.manifest.variants) == ["fp32"]


def test_another_runtime_is_told_to_take_another_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "race_attention", faster)
    monkeypatch.setattr(fusing, "RUNTIME", "another")
    path = built(tmp_path)[0].path
    with open_bundle(path) as bundle:
        graph = bundle.graph_file("network")
        with pytest.raises(UsageError, match="the graph of part 'network' is for another alone") as caught:
            open_session(graph)
    assert caught.value.do == "choose another --variant; `anyport inspect` lists them"


def test_new_weights_go_to_the_plain_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "race_attention", faster)
    result, _ = built(tmp_path)
    weights = result.path / (result.manifest.variants["fp32"].graphs["network"].weights or "")
    found = reweight(result.path, weights, tmp_path / "new.port")
    assert found.dropped == (FUSED_VARIANT,)
    assert found.manifest.default_variant == "fp32"


@pytest.mark.parametrize("shape", [(2, 8, 8), (4, 64, 32)])
def test_the_race_runs_both_forms(shape: tuple[int, int, int]) -> None:
    assert race_attention(AttentionSite("weights", *shape)) > 0
