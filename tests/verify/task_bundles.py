"""A bundle of the tiny captioner whose variant int8 is judged by its task; PyTorch answers for its graphs."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from anyport.bundle import (
    FORMAT,
    GraphEntry,
    Manifest,
    ModelFacts,
    Proof,
    ProofTolerance,
    Provenance,
    VariantEntry,
    seal_bundle,
    write_proof,
)
from anyport.task.graphs import OpenGraphs
from anyport.task.trials import open_trial
from anyport.verify import Evaluated, choose_metrics, evaluate, record
from anyport.verify.lossy import write_task_evaluated
from anyport.verify.tasks import form_of
from tests.build.trained_blip import picture
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from anyport.bundle import GraphFile, MetricEntry
    from anyport.runtime import Session
    from anyport.task.trials import Trial
    from anyport.verify import Recording

ISA = ("avx2",)
PARTS = blip.MODELS["caption"][1]
GRAPHS = blip.graphs("caption", max_new_tokens=5, min_new_tokens=5)
N_SAMPLES = 64


@cache
def exact(part: str) -> blip.TorchPart:
    return blip.TorchPart(part, blip.MODELS["caption"][0]())


def trial_with(others: dict[str, Session]) -> Trial:
    sessions: dict[str, Any] = {part: exact(part) for part in PARTS} | others
    return open_trial(OpenGraphs("caption", GRAPHS.settings, GRAPHS.parts, sessions, GRAPHS.read_bytes))


@cache
def recorded() -> Recording:
    trial = trial_with({})
    return record(trial, _samples(trial), trial.signature, choose_metrics(None, trial.outputs))


def _samples(trial: Trial) -> Iterator[dict[str, np.ndarray]]:
    for number in range(N_SAMPLES):
        yield trial.prepare(picture(number)[0], [])


def manifest(metric: MetricEntry | None) -> Manifest:
    def graphs(variant: str) -> dict[str, GraphEntry]:
        return {
            part: GraphEntry(f"parts/{part}/{variant}/model.onnx", None, None, 20, 1, {"Add": 1}, 0)
            for part in PARTS
        }

    return Manifest(
        format=FORMAT,
        model=ModelFacts("blip", "1.0.0"),
        task="caption",
        settings=dict(GRAPHS.settings),
        parts={part: form_of(blip.signature(part)) for part in PARTS},
        variants={
            "fp32": VariantEntry(graphs("fp32"), [], proven=True),
            "int8": VariantEntry(graphs("int8"), [], proven=True, metric=metric),
        },
        default_variant="fp32",
        provenance=Provenance("blip", "anyport build", {}, "x86_64", "3.11"),
        files=[],
    )


@cache
def _made() -> Path:
    place = Path(mkdtemp(prefix="task-bundle-")) / "blip.port"
    for part in PARTS:
        for variant in ("fp32", "int8"):
            (place / "parts" / part / variant).mkdir(parents=True)
            (place / "parts" / part / variant / "model.onnx").write_bytes(b"graph")
    (place / "assets").mkdir()
    (place / "assets" / "tokenizer.json").write_bytes(blip.tokenizer_json())
    write_proof(place, Proof({part: [] for part in PARTS}, ProofTolerance(8.0, 4.0), []), {})
    held = recorded()
    evaluated = Evaluated(held, evaluate(held, trial_with({})))
    seal_bundle(place, manifest(write_task_evaluated(place, "int8", (PARTS, evaluated), "all equal", ISA)))
    return place


def task_bundle(folder: Path) -> Path:
    """Copy the bundle, which is made once, into a folder."""
    shutil.copytree(_made(), folder / "blip.port")
    return folder / "blip.port"


def opener(**int8: Session) -> Callable[[GraphFile], Any]:
    """Open the exact parts, and these in the place of some of variant int8."""
    return lambda graph: (
        int8[graph.part_name]
        if graph.variant_name == "int8" and graph.part_name in int8
        else exact(graph.part_name)
    )
