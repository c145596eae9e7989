"""Runtimes: a graph becomes a `Session`. One module per runtime, imported when it is asked for."""

from anyport.runtime.opening import RUNTIMES, Entry, open_session
from anyport.runtime.options import Optimization, SessionOptions, size_from_text
from anyport.runtime.session import Session

__all__ = [
    "RUNTIMES",
    "Entry",
    "Optimization",
    "Session",
    "SessionOptions",
    "open_session",
    "size_from_text",
]
