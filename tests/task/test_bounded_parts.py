"""Parts under a memory limit: the same answers, few sessions at a time, and no more memory than allowed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from anyport.errors import MemoryLimitError, SessionError, UsageError
from anyport.task import TaskOptions, bounded_parts
from anyport.task.graphs import FileGraphs
from anyport.task.part_forms import OpenParts
from tests.house import tree
from tests.runtime import networks
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from anyport.runtime import Session
    from anyport.task.memory_policy import MemoryPlan
    from anyport.tensors import TensorSpec

MB = 10**6
WIDTH = 1600
PARTS = ("a", "b", "c")  # 20.5 MB of weights each
TOGETHER, COPIED, MAPPED = 160 * MB, 60 * MB, 30 * MB


class Folder(FileGraphs):
    """Some .onnx files, as the parts of a model."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.parts = dict.fromkeys(PARTS)

    def graph(self, part: str, options: TaskOptions) -> Path:
        assert options.variant is None
        return self.path / f"{part}.onnx"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write parts of two products each: float32[batch, WIDTH] -> float32[batch, WIDTH]."""
    place = tmp_path_factory.mktemp("parts")
    for seed, part in enumerate(PARTS):
        random = np.random.default_rng(seed)
        weights = {n: random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32) for n in ("v", "w")}
        nodes = [
            helper.make_node("MatMul", ["x", "v"], ["h"]),
            helper.make_node("MatMul", ["h", "w"], ["y"]),
        ]
        form: networks.Form = (TensorProto.FLOAT, ["batch", WIDTH])
        networks.save(
            place / f"{part}.onnx",
            nodes,
            networks.Tensors({"x": form}, {"y": form}, weights),
            beside=f"{part}.weights",
        )
    return place


class Counted:
    """A session whose opening and closing are counted."""

    def __init__(self, session: Session, opened: Opened) -> None:
        self._session, self._opened = session, opened

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()
        self._opened.n_now -= 1


@dataclass
class Opened:
    """What was opened."""

    n_now: int = 0
    n_most: int = 0
    names: list[str] = field(default_factory=list)
    plans: list[MemoryPlan] = field(default_factory=list)

    def options(self, limit_bytes: int) -> TaskOptions:
        return TaskOptions(max_memory_bytes=limit_bytes, memory_told=self.plans.append)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    found, really = Opened(), bounded_parts.open_sessions

    def counting(graphs: Sequence[Path], *more: Any) -> list[Counted]:
        assert found.plans, "it is said before anything is opened"
        sessions = [Counted(one, found) for one in really(graphs, *more)]
        found.names += [path.stem for path in graphs]
        found.n_now += len(sessions)
        found.n_most = max(found.n_most, found.n_now)
        return sessions

    monkeypatch.setattr(bounded_parts, "open_sessions", counting)
    yield found
    assert found.n_now == 0


def feeds(n_rows: int, seed: int = 7) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (n_rows, WIDTH)).astype(np.float32)}


@pytest.mark.parametrize(
    ("limit_bytes", "way", "names"),
    [(TOGETHER, "together", "abc"), (COPIED, "copied", "abca"), (MAPPED, "mapped", "abca")],
)
def test_the_answers_are_the_same_and_no_more_is_open_than_was_said(
    folder: Path, opened: Opened, limit_bytes: int, way: str, names: str
) -> None:
    free = OpenParts(Folder(folder), PARTS, TaskOptions())
    parts = OpenParts(Folder(folder), PARTS, opened.options(limit_bytes))
    [plan] = opened.plans
    assert plan.to_json() == {"limit_bytes": limit_bytes, "parts": dict.fromkeys(PARTS, way)}
    assert opened.names == []  # said, and nothing opened yet
    for part in ("a", "a", "b", "b", "b", "c", "a"):  # a part that goes on is not opened again
        found = parts.session(part).run(feeds(3))["y"]
        wanted = free.session(part).run(feeds(3))["y"]
        # packed weights may be summed in other blocks: 2 * sqrt(1600) roundings of values of about 1
        np.testing.assert_allclose(found, wanted, rtol=0, atol=80 * 2.0**-23)
    assert ("".join(opened.names), len(opened.plans)) == (names, 1)
    assert opened.n_most == (3 if way == "together" else 1)
    parts.close()
    parts.close()
    with pytest.raises(SessionError, match="the session is closed"):
        parts.session("a").run(feeds(1))
    free.close()


def test_a_part_that_needs_more_goes_on_alone_with_its_weights_in_the_file(
    folder: Path, opened: Opened
) -> None:
    parts = OpenParts(Folder(folder), PARTS, opened.options(TOGETHER))
    few = parts.session("b").run(feeds(10))["y"]
    n_rows = TOGETHER // (WIDTH * 4 * 2) - 1000  # two tensors of it fit, beside no copied weights
    many = parts.session("b").run({"x": np.concatenate([feeds(10)["x"], feeds(n_rows - 10, 1)["x"]])})["y"]
    np.testing.assert_allclose(many[:10], few, rtol=0, atol=80 * 2.0**-23)
    assert [plan.to_json()["parts"] for plan in opened.plans] == [
        {"a": "together", "b": "together", "c": "together"},
        {"a": "copied", "b": "mapped", "c": "copied"},
    ]
    parts.session("b").run(feeds(10))  # and stays so: no second try
    parts.session("a").run(feeds(10))
    assert "".join(opened.names) == "abcba"
    parts.close()


@pytest.mark.parametrize("limit_bytes", [TOGETHER, COPIED, MAPPED])
def test_what_does_not_fit_in_any_way_is_named(folder: Path, opened: Opened, limit_bytes: int) -> None:
    parts = OpenParts(
        Folder(folder), PARTS, opened.options(limit_bytes), relief={"b": "draw a smaller picture"}
    )
    n_rows = limit_bytes // (WIDTH * 4) + 1
    with pytest.raises(MemoryLimitError) as caught:
        parts.session("b").run(feeds(n_rows))
    begins = f"the part 'b': the run needs more than the memory limit of {limit_bytes / MB:.1f} MB: "
    assert re.fullmatch(r"\d+\.\d MB more were asked for", caught.value.what.removeprefix(begins))
    assert caught.value.where == f"{folder / 'b.onnx'}, inputs x ({n_rows}, {WIDTH})"
    assert caught.value.do == "raise the limit, or draw a smaller picture"
    assert parts.session("b").run(feeds(2))["y"].shape == (2, WIDTH)  # it lives on
    parts.close()


def test_threads_wait_for_each_other(folder: Path, opened: Opened) -> None:
    parts = OpenParts(Folder(folder), PARTS, opened.options(MAPPED))
    wanted = {part: parts.session(part).run(feeds(2))["y"] for part in PARTS}

    def run(number: int) -> bool:
        part = PARTS[number % 3]
        return np.array_equal(parts.session(part).run(feeds(2))["y"], wanted[part])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(24)))
    assert opened.n_most == 1
    parts.close()


def test_parts_that_are_not_needed_at_once_open_one_by_one(folder: Path, opened: Opened) -> None:
    parts = OpenParts(Folder(folder), PARTS, opened.options(TOGETHER), at_once=False)
    assert [spec.name for spec in parts.session("c").inputs] == ["x"]  # only a session can tell
    assert [spec.name for spec in parts.session("c").outputs] == ["y"]
    assert (opened.names, "a" in parts, "z" in parts) == (["c"], True, False)
    parts.close()


def test_nothing_is_opened_where_the_limit_is_too_small(folder: Path, opened: Opened) -> None:
    with pytest.raises(UsageError, match=r"the part 'a' needs 16\.8 MB to begin with"):
        OpenParts(Folder(folder), PARTS, opened.options(1000))
    assert (opened.names, opened.plans) == ([], [])


def test_files_that_cannot_be_read_are_named(tmp_path: Path, opened: Opened) -> None:
    with pytest.raises(SessionError, match=r"there is no file .*a\.onnx"):
        OpenParts(Folder(tmp_path), PARTS, opened.options(TOGETHER))
    (tmp_path / "a.onnx").write_bytes(b"junk, of no kind")
    with pytest.raises(SessionError, match=r"a\.onnx is no whole \.onnx file"):
        OpenParts(Folder(tmp_path), PARTS, opened.options(TOGETHER))


def test_sessions_that_are_open_cannot_be_bounded() -> None:
    with pytest.raises(UsageError, match="the parts are open already: a memory limit is given where"):
        OpenParts(blip.graphs("caption"), blip.MODELS["caption"][1], TaskOptions(max_memory_bytes=TOGETHER))


_GROWTH = """
import sys
from pathlib import Path
import numpy as np
import anyport.runtime.onnxrt
from anyport.runtime import SessionOptions
from anyport.task import TaskOptions
from anyport.task.graphs import FileGraphs
from anyport.task.memory_peak import PeakMemory
from anyport.task.part_forms import OpenParts
folder, limit, n_rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
class Folder(FileGraphs):
    def graph(self, part, options):
        return self.path / f"{part}.onnx"
options = TaskOptions(session=SessionOptions(n_threads=1), max_memory_bytes=limit)
x = np.ones((n_rows, 1600), np.float32)
parts = OpenParts(Folder(folder), "abc", options)
with PeakMemory() as peak:
    for part, n in (("a", 10), ("b", n_rows), ("c", n_rows // 2), ("a", 10)):
        parts.session(part).run({"x": x[:n]})
print(peak.above_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("limit_bytes", [TOGETHER, COPIED, MAPPED])
def test_the_process_grows_no_further_than_the_limit(folder: Path, limit_bytes: int) -> None:
    n_rows = limit_bytes // (WIDTH * 4 * 2) - 1000  # two tensors of it fit, beside no copied weights
    done = subprocess.run(
        [sys.executable, "-c", _GROWTH, str(folder), str(limit_bytes), str(n_rows)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tree.PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    answer = n_rows * WIDTH * 4  # it is copied to numpy; 8 MB: onnxruntime itself, and Python
    assert limit_bytes // 4 < int(done.stdout) < limit_bytes + answer + 8 * MB
