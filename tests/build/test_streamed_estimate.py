"""What a plan says of an export without weights is held against exports, and against what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from anyport.build import BuildSettings
from anyport.build.costs import PartCost, Speed
from anyport.build.streamed_estimate import (
    StreamedPart,
    export_cost,
    streamed_cost,
    streamed_part,
    task_bytes,
)
from anyport.build.workload import workload_of
from anyport.errors import SourceError
from anyport.graph.streamed import StreamOptions, StreamSource, stream_export
from anyport.recipe import Part
from anyport.recipe.part import StoredWeights
from anyport.recipe.weightless import weightless
from anyport.source import open_checkpoint
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
SETTINGS = BuildSettings(max_cases=6, max_case_bytes=1 << 16)
WIDTH = 256
LOADED = PartCost("network", 0, 6, 5, 5, 5, 5, 5.0)


class Network(nn.Module):
    """float32[batch, tokens, 256] -> the same; the second layer has rows, and ``unasked`` is for nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
        self.rows = nn.Linear(WIDTH, WIDTH, bias=False)
        self.unasked = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        self.unasked(x)
        return self.rows(x.flatten(0, 1)).view_as(x)  # type: ignore[no-any-return]  # a module's answer


def make_part(network: nn.Module) -> Part:
    signature = Signature(
        (tensor("x", f"float32[batch, tokens, {WIDTH}]"),),
        (tensor("y", f"float32[batch, tokens, {WIDTH}]"),),
        {"batch": dim("batch", "1..9"), "tokens": dim("tokens", "1..9")},
    )
    return Part("network", network.eval(), signature, blocks="layers")


def checkpoint(folder: Path, dtype: torch.dtype) -> Path:
    weights = {name: weight.to(dtype) for name, weight in Network().state_dict().items()}
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    return folder


def streamed(folder: Path) -> StreamedPart:
    part = make_part(Network().to("meta"))
    part = replace(part, stored=StoredWeights(part.module, folder))
    return streamed_part(part, workload_of(part, SETTINGS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("way", "storage"), [("reference", "as-is"), ("copy", "as-is"), ("copy", "float32")])
def test_what_is_written_is_what_was_said(tmp_path: Path, dtype: torch.dtype, way: Any, storage: Any) -> None:
    folder = checkpoint(tmp_path / "checkpoint", dtype)
    said = export_cost(streamed(folder), way, storage)
    with weightless():
        network = Network()
    source = StreamSource(network, open_checkpoint(folder))
    options = StreamOptions(way, storage=storage)
    graph = stream_export(make_part(network), source, tmp_path / "model.onnx", options)
    weights = tmp_path / "weights.safetensors"
    assert said.weight_bytes == pytest.approx(weights.stat().st_size if weights.exists() else 0, rel=0.01)
    # names of files and symbols weigh more in a graph of a few nodes
    assert said.graph_bytes == pytest.approx(graph.path.stat().st_size, abs=4000)
    assert said.written_bytes == said.graph_bytes + said.weight_bytes


def test_the_checkpoint_is_looked_up(tmp_path: Path) -> None:
    found = streamed(checkpoint(tmp_path / "checkpoint", torch.bfloat16))
    n_needed, n_all = 4 * WIDTH**2 + 3 * WIDTH, 5 * WIDTH**2 + 4 * WIDTH
    assert (found.stored.n_bytes, found.stored.n_files, found.stored.dtypes) == (2 * n_all, 1, ("BF16",))
    assert found.float32_bytes == 4 * n_needed, "what nobody asks for is not in the graph"
    assert (found.read_bytes, found.single_bytes) == (10 * WIDTH**2, 6 * WIDTH**2)
    assert found.cast_bytes == 4 * WIDTH**2
    turned = [weight.is_turned for weight in found.weights if weight.n_elements == WIDTH**2]
    assert turned == [True, True, True, False], "rows alone have an operator with PyTorch's layout"


def test_an_index_says_it_where_no_file_is_here(tmp_path: Path) -> None:
    here = streamed(checkpoint(tmp_path / "here", torch.bfloat16))
    folder = tmp_path / "configured"
    folder.mkdir()
    names = list(Network().state_dict())
    index = {name: f"model-{place % 2}.safetensors" for place, name in enumerate(names)}
    for n_bytes, word in ((here.stored.n_bytes, "16-bit"), (2 * here.stored.n_bytes, "F32")):
        content = {"metadata": {"total_size": n_bytes}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")
        found = streamed(folder)
        assert (found.stored.n_bytes, found.stored.n_files, found.stored.dtypes) == (n_bytes, 2, (word,))
    assert streamed(tmp_path / "nowhere").stored.dtypes == ("16-bit",), "one file, that is not here yet"


def test_a_part_that_is_loaded_is_none_of_these() -> None:
    part = make_part(Network().to("meta"))
    with pytest.raises(SourceError, match="^the weights of part 'network' are loaded$"):
        streamed_part(part, workload_of(part, SETTINGS))


def test_a_proof_needs_more_than_an_export_and_reads_all_weights(tmp_path: Path) -> None:
    one = streamed(checkpoint(tmp_path / "checkpoint", torch.bfloat16))
    fast, slow = (
        streamed_cost(one, LOADED, Speed(*s), "reference", "as-is") for s in ((1e11, 5e10), (5e10, 25e9))
    )
    assert fast.proof_bytes == LOADED.proof_bytes
    assert fast.n_cases == LOADED.n_cases
    assert fast.stored == one.stored
    assert fast.export_memory_bytes == export_cost(one, "reference").memory_bytes
    largest = max(run.peak_bytes for run in one.load.runs)
    assert fast.memory_bytes > one.read_bytes + 6 * largest
    assert fast.time_s < slow.time_s < 2 * fast.time_s
    much = replace(one, weights=tuple(replace(w, n_elements=1000 * w.n_elements) for w in one.weights))
    assert streamed_cost(much, LOADED, Speed(1e11, 5e10), "reference", "as-is").time_s > fast.time_s
    assert task_bytes([]) == 0
    assert task_bytes([one, one]) == max(one.single_bytes, one.cast_bytes + 2 * one.session_bytes)


# ── what was measured ───────────────────────────────────────────────────────────────────────────────────
@cache
def denoiser(n_layers: int) -> Any:
    import diffusers

    with torch.device("meta"):
        return diffusers.QwenImageTransformer2DModel(num_layers=n_layers).eval()


def denoiser_part(folder: Path, n_layers: int, item_bytes: int) -> StreamedPart:
    """Return the published denoiser with so many layers, of which an index is here."""
    from anyport.recipe.qwen_edit_parts import transformer

    network = denoiser(n_layers)
    part = transformer(network)
    part.module.to("meta")
    names = list(network.state_dict())
    n_bytes = item_bytes * sum(weight.numel() for weight in network.parameters())
    content = {"metadata": {"total_size": n_bytes}, "weight_map": dict.fromkeys(names, "a-00001.safetensors")}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(content))
    part = replace(part, stored=StoredWeights(network, folder))
    return streamed_part(part, workload_of(part, SETTINGS, largest_only=True))


MEASURED = [  # python bench/streamed.py FOLDER: layers, bytes of a number, form, GiB of memory, MB written
    (60, 2, ("reference", "as-is"), 0.945, 1.616),
    (2, 2, ("reference", "as-is"), 0.397, 0.0588),
    (2, 2, ("copy", "as-is"), 0.483, 1270.530),
    (2, 2, ("copy", "float32"), 0.623, 2540.981),
    (2, 4, ("reference", "as-is"), 0.396, 0.0450),
    (2, 4, ("copy", "as-is"), 0.537, 2540.981),
]


@pytest.mark.parametrize("measured", MEASURED, ids=lambda row: f"{row[0]}x{row[1]}-{'-'.join(row[2])}")
def test_the_measured_exports_are_foreseen(
    tmp_path: Path, measured: tuple[int, int, Any, float, float]
) -> None:
    n_layers, item_bytes, form, memory_gib, written_mb = measured
    said = export_cost(denoiser_part(tmp_path, n_layers, item_bytes), *form)
    assert said.memory_bytes / GIB == pytest.approx(memory_gib, rel=0.05)
    assert said.written_bytes / 1e6 == pytest.approx(written_mb, rel=0.05)
