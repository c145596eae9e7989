"""What the tasks that write share: rows, and what a stream refuses. The rest: test_caption."""

from __future__ import annotations

import pytest

from anyport.errors import UsageError
from anyport.task import TaskOptions, settings_from
from anyport.task.caption import Options, open_task
from anyport.task.writing import WritingTask, only_picture, refuse_stream
from tests.task import blip


def options(**said: bool) -> Options:
    return settings_from(said, Options, "options")


def test_a_stream_is_of_one_picture() -> None:
    assert only_picture(["a.png"], options(stream=True)) == "a.png"
    with pytest.raises(UsageError) as caught:
        only_picture(["a.png"] * 3, options(stream=True))
    assert str(caught.value) == (
        "--stream shows one picture at a time, 3 are given\n  do:    leave --stream out, or give one picture"
    )
    with pytest.raises(UsageError, match="--stream and --truncate cannot go together"):
        only_picture(["a.png"], options(stream=True, truncate=True))


def test_without_a_stream_nothing_is_refused() -> None:
    refuse_stream(options())
    with pytest.raises(UsageError, match="--stream shows a text while it is written"):
        refuse_stream(options(stream=True))


def test_it_closes_what_it_opened() -> None:
    graphs = blip.graphs("caption")
    with open_task(graphs, graphs.settings, TaskOptions()) as task:
        assert isinstance(task, WritingTask)
        assert graphs.is_open
    task.close()
    assert not graphs.is_open
    assert not any(session.is_open for session in graphs.sessions.values())
