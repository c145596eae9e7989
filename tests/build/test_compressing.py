from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest

from anyport.build import build, compressing, steps
from anyport.build.compressing import variant_name
from anyport.bundle import open_bundle
from anyport.errors import AnyportError, CompressError, InputError, SourceError, UsageError
from anyport.runtime import open_session
from anyport.source import find_model
from anyport.verify import Status, verify_bundle
from tests.build.building import plan_for, silent

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.recipe import Model

SAMPLES = {"calibrate": {"samples": "judging.py:pairs"}}


def made_with(*methods: str, **tables: Any) -> dict[str, Any]:
    return SAMPLES | {"build": {"compress": list(methods), "prefer": "size"}} | tables


def test_variants_stand_beside_the_exact_one_and_prove_themselves(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    plan = plan_for("image_and_text", tmp_path / "m.port", **made_with("int8-static:u8s8", "fp16"))
    result = build(plan, lambda step, text: lines.append((step, text)))
    assert [step for step, _ in lines] == ["source", "export", "verify", "compress", "compress", "bundle"]
    assert result.refused == {}
    manifest = result.manifest
    assert manifest.default_variant == "fp32"
    assert list(manifest.variants) == ["fp32", "int8-static-u8s8", "fp16"]
    with open_bundle(result.path) as bundle:
        bundle.check()
        sizes = {n: _bytes_of(bundle.graph_file("network", n).path) for n in manifest.variants}
        assert sizes["fp32"] > max(sizes["fp16"], sizes["int8-static-u8s8"])
        for name in manifest.variants:
            [verdict] = verify_bundle(bundle, open_session, name)
            assert verdict.status is Status.PASS, verdict
            graph = bundle.graph_file("network", name)
            assert graph.entry.n_nodes == len(onnx.load(graph.path, load_external_data=False).graph.node)
            session = open_session(graph)
            words = np.ones((3, 4), np.int64)
            feeds = {"pixel_values": np.ones((3, 3, 32, 32), np.float32), "input_ids": words}
            assert session.run(feeds)["embedding"].shape == (3, 16)
            session.close()
    lossy = manifest.variants["int8-static-u8s8"]
    assert lossy.proven
    assert [step.verb for step in lossy.steps] == ["export", "compress"]
    assert lossy.steps[1].settings["method"] == "int8-static:u8s8"
    assert "judging.py:pairs" in lossy.steps[1].settings["calibrated_on"]
    assert lossy.metric is not None
    assert lossy.metric.metric == "cosine"


def _bytes_of(path: Path) -> int:
    return sum(
        file.stat().st_size for file in path.parent.iterdir() if file.suffix in {".onnx", ".safetensors"}
    )


def test_what_was_measured_lies_in_the_report(tmp_path: Path) -> None:
    plan = plan_for("image_and_text", tmp_path / "m.port", **made_with("fp16"))
    result = build(plan, silent)
    report = json.loads((tmp_path / "m.report.json").read_bytes())
    assert report["compressions"]["fp16"]["network"]["ratio"] > 0
    assert "ratio" not in json.dumps(msgspec.to_builtins(result.manifest.variants))
    assert result.manifest.variants["fp16"].note in {"", "network: not faster than fp32, kept for its size"}


def test_a_simplified_model_is_compressed_as_it_was_simplified(tmp_path: Path) -> None:
    made = {"opset": 17, "simplify": "auto", "compress": ["int8-dynamic"], "prefer": "size"}
    tables = {"calibrate": {"samples": "random"}, "build": made}
    result = build(plan_for("masked_encoder", tmp_path / "m.port", **tables), silent)
    variant = result.manifest.variants["int8-dynamic"]
    assert "calibrated and judged on random numbers, not on data" in variant.note
    assert [s.verb for s in variant.steps] == [
        "export",
        "simplify",
        "compress",
    ]
    with open_bundle(result.path) as bundle:
        assert [v.status for v in verify_bundle(bundle, open_session, "int8-dynamic")] == [Status.PASS]


def test_a_metric_that_drops_keeps_the_variant_out_and_the_rest_in(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    tables = made_with("int8-static:u8s8", evaluate={"function": "judging.py:worse_each_time"})
    plan = plan_for("image_and_text", tmp_path / "m.port", **tables)
    result = build(plan, lambda step, text: lines.append((step, text)))
    assert list(result.manifest.variants) == ["fp32"]
    assert "a drop of 0.5, allowed 0.005" in result.refused["int8-static-u8s8"].what
    assert any(text.startswith("int8-static-u8s8 IS NOT WRITTEN") for _, text in lines)
    assert not (result.path / "parts/network/int8-static-u8s8").exists()
    assert not list((result.path / "proof").glob("int8*"))
    with open_bundle(result.path) as bundle:
        bundle.check()
        assert [v.status for v in verify_bundle(bundle, open_session)] == [Status.PASS]


def test_ones_own_metric_stands_in_the_manifest(tmp_path: Path) -> None:
    tables = made_with("int8-static:u8s8", evaluate={"function": "judging.py:mean_length", "max_drop": 1.0})
    result = build(plan_for("image_and_text", tmp_path / "m.port", **tables), silent)
    metric = result.manifest.variants["int8-static-u8s8"].metric
    assert metric is not None
    assert metric.note.startswith("mean length ")


WRONG: dict[str, tuple[dict[str, Any], type[AnyportError], str]] = {
    "no samples": (
        {"build": {"compress": ["int8"]}},
        UsageError,
        "--compress int8 has no samples to be judged by",
    ),
    "no method": (
        SAMPLES | {"build": {"compress": ["int9"]}},
        UsageError,
        "there is no method 'int9' (did you mean 'int8'?)",
    ),
    "no metric": (
        made_with("fp16", metrics={"embedding": "bleu"}),
        UsageError,
        "there is no metric 'bleu'",
    ),
    "no output": (
        made_with("fp16", metrics={"embeding": "psnr"}),
        UsageError,
        "[metrics] names 'embeding', which is no output (did you mean 'embedding'?)",
    ),
    "twice": (SAMPLES | {"build": {"compress": ["fp16", "fp16"]}}, UsageError, "--compress fp16 comes twice"),
    "no function": (
        made_with("fp16", evaluate={"function": "judging.py:none_such"}),
        SourceError,
        "'judging.py' has no function 'none_such'",
    ),
    "no folder": (
        made_with("fp16") | {"calibrate": {"samples": "pictures"}},
        InputError,
        "there is no folder 'pictures'",
    ),
    "no limit": (
        made_with("fp16", evaluate={"function": "judging.py:mean_length", "max_drop": float("inf")}),
        UsageError,
        "max_drop = inf is no limit",
    ),
    "nothing": (
        made_with("fp16") | {"calibrate": {"samples": ""}},
        UsageError,
        "--compress fp16 has no samples to be judged by",
    ),
    "no number": (
        made_with("fp16", evaluate={"function": "judging.py:not_a_number"}),
        SourceError,
        "'judging.py:not_a_number' returns nan, not a number",
    ),
}


@pytest.mark.parametrize(("tables", "kind", "text"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_judged_stops_the_build(
    tables: dict[str, Any], kind: type[AnyportError], text: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        build(plan_for("image_and_text", tmp_path / "m.port", **tables), silent)
    assert text in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_of_several_parts_those_that_gain_nothing_stay_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for("image_and_text", tmp_path / "m.port", **made_with("int8-dynamic"))
    plan = replace(plan, description=msgspec.structs.replace(plan.description, calibrate=_random()))
    encoder = find_model(plan_for("masked_encoder", tmp_path / "e.port").request).parts[0]

    def two_parts(request: Any) -> Model:
        model = find_model(request)
        picture = replace(model.parts[0], name="picture")
        return replace(model, parts=(picture, replace(encoder, name="text")), task=None, settings={})

    monkeypatch.setattr(steps, "find_model", two_parts)
    lines: list[str] = []
    result = build(plan, lambda _step, text: lines.append(text))
    variant = result.manifest.variants["int8-dynamic"]
    assert variant.graphs["text"].file == "parts/text/int8-dynamic/model.onnx"
    assert set(result.compressions["int8-dynamic"]) >= {"text"}
    with open_bundle(result.path) as bundle:
        bundle.check()
        verdicts = verify_bundle(bundle, open_session, "int8-dynamic")
        assert [v.status for v in verdicts] == [Status.PASS, Status.PASS]


@pytest.mark.parametrize(("n_parts", "timed"), [(1, None), (2, "the first sample")])
def test_parts_of_a_recipe_are_raced_at_the_sizes_of_a_sample(
    n_parts: int, timed: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for("image_and_text", tmp_path / "m.port", **made_with("int8-dynamic"))

    def parts(request: Any) -> Model:
        model = find_model(request)
        several = tuple(replace(model.parts[0], name=f"part{number}") for number in range(n_parts))
        return replace(model, parts=several, task=None, settings={})

    raced: list[Any] = []

    def refuse(_graph: Path, _output: Path, request: Any) -> Any:
        raced.append(request.equality.timed)
        raise CompressError("far enough", do="")

    monkeypatch.setattr(steps, "find_model", parts)
    monkeypatch.setattr(compressing, "compress_graph", refuse)
    build(plan, silent)
    assert [case and case.name for case in raced] == [timed] * n_parts


def _random() -> Any:
    from anyport.build.description import CalibrateTable

    return CalibrateTable("random")


def test_names_of_variants_are_names_of_folders() -> None:
    assert variant_name("int8-static:u8s8:percentile=99.9") == "int8-static-u8s8-percentile-99.9"
