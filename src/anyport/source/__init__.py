"""Finding and loading a PyTorch model, and running it as the reference."""

from anyport.source.adapter import Adapter, check_eval_mode
from anyport.source.checkpoint import (
    Checkpoint,
    StoredTensor,
    Wanted,
    check_against,
    open_checkpoint,
    renamed,
    wanted_weights,
)
from anyport.source.finding import (
    SourceRequest,
    checkpoint_of,
    find_model,
    load_function,
    load_module,
    load_value,
    outline_model,
)
from anyport.source.ranges import Ranges, find_ranges
from anyport.source.running import TorchReference, TorchSession
from anyport.source.weightfiles import WeightFiles, planned_files, weight_files

__all__ = [
    "Adapter",
    "Checkpoint",
    "Ranges",
    "SourceRequest",
    "StoredTensor",
    "TorchReference",
    "TorchSession",
    "Wanted",
    "WeightFiles",
    "check_against",
    "check_eval_mode",
    "checkpoint_of",
    "find_model",
    "find_ranges",
    "load_function",
    "load_module",
    "load_value",
    "open_checkpoint",
    "outline_model",
    "planned_files",
    "renamed",
    "wanted_weights",
    "weight_files",
]
