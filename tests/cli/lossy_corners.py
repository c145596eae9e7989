"""The small classifier with a lossy variant: nearly exact when it was built, whatever its file has now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from anyport.bundle import open_bundle, seal_bundle
from anyport.runtime import open_session
from anyport.tensors import Signature
from anyport.verify import Evaluated, choose_metrics, evaluate, record, write_evaluated
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def lossy_corners(folder: Path, factors: tuple[float, ...] = (10.0, 10.01, 9.99, 10.0)) -> Path:
    """Return ``corners.port``, whose int8 variant multiplies each score by a factor of its own.

    What the build measured is that of nearly the right factors, whatever the file has now: as it would be
    on a processor that answers otherwise.
    """
    place = networks.corners_bundle(folder)
    with open_bundle(place) as bundle:
        said = bundle.manifest
        part = said.parts["network"]
        signature = Signature(part.input_specs(), part.output_specs(), part.dim_ranges())
        session = open_session(bundle.graph_file("network"))
    rng = np.random.default_rng(0)
    feeds = ({"pixel_values": rng.normal(size=(1, 1, 2, 2)).astype(np.float32)} for _ in range(128))
    held = record(session, feeds, signature, choose_metrics("classify", signature.outputs))
    metric = write_evaluated(place, "int8", {"network": Evaluated(held, evaluate(held, session))}, ["avx2"])
    session.close()
    fp32 = said.variants["fp32"]
    graph = msgspec.structs.replace(fp32.graphs["network"], file="parts/network/int8/model.onnx")
    model = onnx.load(str(place / fp32.graphs["network"].file))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(factors, np.float32), "ten"))
    (place / "parts" / "network" / "int8").mkdir()
    onnx.save(model, str(place / graph.file))
    int8 = msgspec.structs.replace(fp32, graphs={"network": graph}, metric=metric)
    seal_bundle(place, msgspec.structs.replace(said, variants=said.variants | {"int8": int8}, files=[]))
    return place
