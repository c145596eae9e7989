"""Finding and loading a PyTorch model, and running it as the reference."""

from anyport.source.adapter import Adapter, check_eval_mode
from anyport.source.finding import SourceRequest, find_model, load_function, load_module, load_value
from anyport.source.ranges import Ranges, find_ranges
from anyport.source.running import TorchReference, TorchSession

__all__ = [
    "Adapter",
    "Ranges",
    "SourceRequest",
    "TorchReference",
    "TorchSession",
    "check_eval_mode",
    "find_model",
    "find_ranges",
    "load_function",
    "load_module",
    "load_value",
]
