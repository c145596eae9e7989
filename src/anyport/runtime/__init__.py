"""Runtimes: a graph becomes a `Session`. One module per runtime, imported when it is asked for."""

from anyport.runtime.opening import RUNTIMES, Entry, open_session, open_sessions
from anyport.runtime.options import Optimization, SessionOptions, Weights, size_from_text
from anyport.runtime.session import Session

__all__ = [
    "RUNTIMES",
    "Entry",
    "Optimization",
    "Session",
    "SessionOptions",
    "Weights",
    "open_session",
    "open_sessions",
    "size_from_text",
]
