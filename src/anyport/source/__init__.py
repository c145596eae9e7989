"""Finding and loading a PyTorch model, and running it as the reference."""

from anyport.source.adapter import Adapter, check_eval_mode
from anyport.source.finding import SourceRequest, find_model, load_function, load_module, load_value
from anyport.source.running import TorchReference, TorchSession

__all__ = [
    "Adapter",
    "SourceRequest",
    "TorchReference",
    "TorchSession",
    "check_eval_mode",
    "find_model",
    "load_function",
    "load_module",
    "load_value",
]
