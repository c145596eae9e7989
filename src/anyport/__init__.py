"""anyport: export once, run in any port.

::

    import anyport

    with anyport.open_task("digits.port") as task:
        print(task.classify(["seven.png"])[0].label)

Nothing is imported before it is asked for: ``import anyport`` loads neither numpy nor onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.bundle import open_bundle
    from anyport.runtime import SessionOptions, open_session
    from anyport.task import TaskOptions, open_task

    __version__: str

__all__ = ["SessionOptions", "TaskOptions", "__version__", "open_bundle", "open_session", "open_task"]

_HOMES: Final[Mapping[str, str]] = {
    "SessionOptions": "anyport.runtime",
    "TaskOptions": "anyport.task",
    "open_bundle": "anyport.bundle",
    "open_session": "anyport.runtime",
    "open_task": "anyport.task",
}


def __getattr__(name: str) -> object:
    """Import what is asked for (PEP 562)."""
    if name == "__version__":
        return _version()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'anyport' has no attribute '{name}'")


def __dir__() -> list[str]:
    """List what can be asked for."""
    return sorted(__all__)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("anyport")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"
