"""Bundles: one folder (or one zip of it) that carries graphs, weights, assets and the proof, sealed.

`open_bundle` reads one, `Staging` and `seal_bundle` make one, `pack` and `unpack` turn a folder into a zip
and back. ``docs/bundle.md`` specifies every byte. Nothing here needs more than numpy and msgspec.
"""

from anyport.bundle.archive import pack, unpack
from anyport.bundle.lossy import (
    LossyPart,
    LossyProof,
    LossyRun,
    LossyTask,
    OutputMetric,
    read_lossy_proof,
    read_lossy_task,
    write_lossy_proof,
)
from anyport.bundle.manifest import (
    FORMAT,
    FileEntry,
    GraphEntry,
    Manifest,
    MetricEntry,
    ModelFacts,
    PartEntry,
    Provenance,
    Step,
    VariantEntry,
    decode_manifest,
    encode_manifest,
    is_version,
    stored_text,
)
from anyport.bundle.proof import (
    Proof,
    ProofCase,
    ProofTolerance,
    RecordedFloor,
    StoredArrays,
    answers_of,
    case_of,
    open_arrays,
    read_proof,
    write_proof,
)
from anyport.bundle.reading import Bundle, GraphFile, open_bundle
from anyport.bundle.strictjson import convert_tree, decode_json
from anyport.bundle.tensorfile import TensorEntry, TensorFileWriter, dtype_code, read_header, read_tensor
from anyport.bundle.writing import Staging, seal_bundle, staged_file, staged_files, write_file_atomically

__all__ = [
    "FORMAT",
    "Bundle",
    "FileEntry",
    "GraphEntry",
    "GraphFile",
    "LossyPart",
    "LossyProof",
    "LossyRun",
    "LossyTask",
    "Manifest",
    "MetricEntry",
    "ModelFacts",
    "OutputMetric",
    "PartEntry",
    "Proof",
    "ProofCase",
    "ProofTolerance",
    "Provenance",
    "RecordedFloor",
    "Staging",
    "Step",
    "StoredArrays",
    "TensorEntry",
    "TensorFileWriter",
    "VariantEntry",
    "answers_of",
    "case_of",
    "convert_tree",
    "decode_json",
    "decode_manifest",
    "dtype_code",
    "encode_manifest",
    "is_version",
    "open_arrays",
    "open_bundle",
    "pack",
    "read_header",
    "read_lossy_proof",
    "read_lossy_task",
    "read_proof",
    "read_tensor",
    "seal_bundle",
    "staged_file",
    "staged_files",
    "stored_text",
    "unpack",
    "write_file_atomically",
    "write_lossy_proof",
    "write_proof",
]
