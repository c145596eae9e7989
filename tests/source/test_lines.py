"""Lines of the user's code: the right one, and never a path of this machine."""

from __future__ import annotations

import json
import sysconfig
import traceback
from pathlib import Path

import pytest
from torch import nn

import anyport
from anyport.source.lines import (
    first_line,
    innermost,
    is_users,
    short_path,
    user_line,
    user_line_of,
    where_is,
)

STDLIB = sysconfig.get_paths()["stdlib"]
OURS = str(Path(anyport.__file__).parent / "source" / "adapter.py")


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/anywhere/lib/python3.11/site-packages/torch/nn/functional.py", "torch/nn/functional.py"),
        ("/usr/lib/python3/dist-packages/timm/models/resnet.py", "timm/models/resnet.py"),
        ("/a/site-packages/b/site-packages/c/d.py", "c/d.py"),
        (f"{STDLIB}/json/decoder.py", "json/decoder.py"),
        ("/home/someone/work/model.py", "model.py"),
        ("model.py", "model.py"),
        ("nets/model.py", "model.py"),
        ("<string>", "<string>"),
        ("<eval_with_key>.12", "<eval_with_key>.12"),
    ],
)
def test_short_paths(path: str, short: str) -> None:
    assert short_path(path) == short


def test_a_path_inside_a_package_keeps_the_package(tmp_path: Path) -> None:
    inner = tmp_path / "place" / "nets" / "blocks"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    assert short_path(str(inner / "attention.py")) == "nets/blocks/attention.py"
    assert short_path(str(tmp_path / "place" / "other.py")) == "other.py"


@pytest.mark.parametrize("path", ["/a/b/c.py", f"{STDLIB}/re/__init__.py", __file__, OURS, nn.__file__])
def test_no_short_path_is_absolute(path: str) -> None:
    assert not Path(short_path(path)).is_absolute()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (__file__, True),
        ("/home/someone/model.py", True),
        ("model.py", True),
        (OURS, False),
        (nn.__file__, False),
        (f"{STDLIB}/json/decoder.py", False),
        ("/x/site-packages/transformers/models/bert/modeling_bert.py", False),
        ("torch/nn/modules/linear.py", False),
        ("<frozen importlib>", False),
    ],
)
def test_whose_code_it_is(path: str, expected: bool) -> None:
    assert is_users(path) is expected


TRACE = """Traceback
  File "/home/someone/model.py", line 12, in forward
    x = self.block(x)
  File "/v/site-packages/torch/nn/modules/module.py", line 1775, in _wrapped_call_impl
    return self._call_impl(*args)
  File "/home/someone/blocks.py", line 7, in forward
    return softmax(x)  # here
  File "/v/site-packages/torch/nn/functional.py", line 2000, in softmax
    return input.softmax(dim)
"""
HUB = """
  File "/v/site-packages/transformers/models/bert/modeling_bert.py", line 88, in forward
    embeddings = embeddings + tokens
  File "/v/site-packages/torch/nn/functional.py", line 2000, in softmax
    return input.softmax(dim)
"""


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        (TRACE, "blocks.py:7: return softmax(x)  # here"),
        (HUB, "transformers/models/bert/modeling_bert.py:88: embeddings = embeddings + tokens"),
        (HUB + TRACE, "blocks.py:7: return softmax(x)  # here"),
        ('File "/home/someone/model.py", line 3, in f', "model.py:3"),
        ('File "/v/site-packages/torch/nn/functional.py", line 2, in f\n  x', None),
        (f'File "{OURS}", line 2, in forward\n  x', None),
        ("no frame at all", None),
        ("", None),
    ],
)
def test_the_innermost_line_of_the_user(trace: str, line: str | None) -> None:
    assert user_line(trace) == line


def caught(text: str) -> ValueError:
    try:
        json.loads(text)
    except ValueError as err:
        return err
    raise AssertionError


def test_the_line_that_led_to_an_error() -> None:
    error = caught("{")
    assert user_line_of(error) == f"test_lines.py:{line_of('json.loads(text)')}: json.loads(text)"
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = error
    assert user_line_of(wrapped) == user_line_of(error)
    assert innermost(wrapped) is error
    assert user_line_of(RuntimeError("never raised")) is None
    assert user_line_of(RuntimeError(TRACE)) == "blocks.py:7: return softmax(x)  # here"


def line_of(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip() == text)


def test_a_ring_of_causes_ends() -> None:
    left, right = RuntimeError("left"), RuntimeError("right")
    left.__cause__, right.__cause__ = right, left
    assert innermost(left) is right


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError("\n  one  \n")) == "one"
    assert first_line(KeyError()) == "KeyError"


class Net(nn.Module):
    pass


def test_where_a_class_is_written() -> None:
    assert where_is(Net()) == f"Net, test_lines.py:{line_of('class Net(nn.Module):')}"
    assert where_is(nn.Linear(1, 1)).startswith("Linear, torch/nn/modules/linear.py:")
    assert where_is(type("Made", (nn.Module,), {"__module__": "nowhere"})()) == "Made"


def test_traceback_texts_are_understood() -> None:
    text = "".join(traceback.format_exception(caught("{")))
    assert user_line(text) == f"test_lines.py:{line_of('json.loads(text)')}: json.loads(text)"
