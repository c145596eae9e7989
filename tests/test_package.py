"""What `import anyport` offers, and that it costs nothing."""

from __future__ import annotations

from importlib import metadata

import pytest

import anyport
from anyport import bundle, runtime, task


def test_names_come_from_their_rooms() -> None:
    assert anyport.open_bundle is bundle.open_bundle
    assert anyport.open_task is task.open_task
    assert anyport.open_session is runtime.open_session
    assert anyport.SessionOptions is runtime.SessionOptions
    assert anyport.TaskOptions is task.TaskOptions
    assert dir(anyport) == sorted(anyport.__all__)


def test_there_is_nothing_else() -> None:
    with pytest.raises(AttributeError, match="module 'anyport' has no attribute 'opne_task'"):
        _ = anyport.opne_task


def test_the_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"1.2.3 of {name}")
    assert anyport.__version__ == "1.2.3 of anyport"

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert anyport.__version__ == "0+uninstalled"
