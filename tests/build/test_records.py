from __future__ import annotations

import math
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.build import records
from anyport.build.block_proving import planned
from anyport.build.proving import Recorded, Recorder, recorded_equality
from anyport.build.records import PartRecord, TaskRecord, read_record, restore_part, write_part
from anyport.build.streamed_part import export_streamed
from anyport.bundle import read_header
from anyport.cases import Case, Normal, Stored
from anyport.errors import BundleError
from anyport.graph.attention import AttentionSite
from anyport.verify import Answer, Floor
from tests.build.building import silent
from tests.build.streaming import HOW, model_in, plan_in, write_checkpoint

if TYPE_CHECKING:
    from anyport.build.parts import ProvenPart

KEY = {"the weights": "0" * 64}


class Reference:
    """Nobody asks it."""

    def answer(self, case: Case) -> Answer:
        raise AssertionError(case.name)


def odd(proven: ProvenPart) -> ProvenPart:
    """Return a proven part with what a small one does not have."""
    worst = proven.verdict.findings[0]
    assert worst.numbers is not None
    beyond = replace(
        worst,
        numbers=replace(worst.numbers, max_rel=math.inf, cosine_min=None, index=()),
        floor=Floor(math.inf, math.inf, "float32 overflows"),
    )
    findings = (beyond, replace(worst, numbers=None, floor=None, reason="does not run"))
    verdict = replace(proven.verdict, findings=(*proven.verdict.findings, *findings), origin="block 3")
    arrays = {"empty": np.zeros((0, 3), np.float16), "none": np.array(3, np.int64)}
    arrays |= {"bits": np.array([True, False])}
    case = Case("odd", "boundary", {"n": 0}, {"x": Stored("empty"), "z": Normal(3)}, arrays)
    recorder = proven.recorder
    recorder.recorded.append(Recorded(case, Answer(arrays, {}, {"bits": [4]}), {"bits": (4,)}))
    recorder.omitted.append("large")
    site = AttentionSite("softmax", 2, 8, 4)
    graph = replace(proven.graph, warnings=("it will not",))
    return replace(proven, verdict=verdict, attention=(site,), graph=graph)


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ProvenPart]:
    """Return a folder with the record and the graph of a part, and the part."""
    folder = tmp_path_factory.mktemp("record")
    model = model_in(write_checkpoint(folder / "checkpoint"))
    plan = plan_in(folder)
    (folder / "graph").mkdir()
    (folder / "record").mkdir()
    proven = odd(export_streamed(model, model.parts[0], plan, silent, folder / "graph"))
    write_part(folder / "record", proven, KEY)
    return folder, proven


@pytest.fixture(name="folder")
def _folder(made: tuple[Path, ProvenPart], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def restored(folder: Path) -> ProvenPart:
    part = model_in(folder / "checkpoint").parts[0]
    blank = Recorder(Reference(), 1000, 300)
    record = read_record(folder / "record", PartRecord)
    places = (folder / "record", folder / "graph")
    return restore_part(record, part, planned(part, HOW), places, blank)


def plain(value: Any) -> Any:
    """Return what can be compared: arrays with their type, NaN as itself."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    return value


def test_a_part_comes_back_as_it_was(made: tuple[Path, ProvenPart]) -> None:
    folder, proven = made
    found = restored(folder)
    assert found.verdict.to_json() == proven.verdict.to_json()
    for name in ("legs", "findings", "origin", "plan"):
        assert plain(getattr(found.verdict, name)) == plain(getattr(proven.verdict, name)), name
    assert found.verdict.summary() == proven.verdict.summary()
    assert found.verdict.part == proven.verdict.part
    assert (found.graph, found.steps, found.attention) == (proven.graph, proven.steps, proven.attention)
    assert found.entry == proven.entry
    for name in ("kept", "recorded", "omitted"):
        assert plain(getattr(found.recorder, name)) == plain(getattr(proven.recorder, name)), name
    assert len(found.recorder.kept) > 1
    assert any(one.case.stored and one.shapes == {} for one in found.recorder.recorded)


def test_a_fused_form_is_held_against_the_same_answers(made: tuple[Path, ProvenPart]) -> None:
    found = restored(made[0])
    equality = recorded_equality(found.recorder, found.verdict, HOW.gates)
    case, answer = found.recorder.kept[0]
    assert equality.reference.answer(case) == answer


def test_what_is_held_twice_is_stored_once(made: tuple[Path, ProvenPart]) -> None:
    folder, proven = made
    held = [a for _, one in proven.recorder.kept for a in one.outputs.values()]
    for recorded in proven.recorder.recorded:
        held += [*recorded.answer.outputs.values(), *recorded.case.stored.values()]
    n_different = len({id(array) for array in held})
    assert n_different < len(held)
    assert len(read_header(folder / "record" / records.ANSWERS)) == n_different


def spoiled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("record/answers.safetensors", "'answers.safetensors' is not what was written"),
        ("record/record", "the record of what was done is damaged"),
        ("graph/model.onnx", "'model.onnx' is not what was written"),
        ("graph/modules.json", "'modules.json' is not what was written"),
        ("graph/weights.safetensors", "'weights.safetensors' is not what was written"),
    ],
)
def test_a_bit_that_is_not_as_written_is_seen(folder: Path, name: str, told: str) -> None:
    spoiled(folder / name)
    with pytest.raises(BundleError) as caught:
        restored(folder)
    assert caught.value.what == told


def test_a_file_that_is_cut_off_or_gone_is_seen(folder: Path) -> None:
    weights = folder / "graph" / "weights.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(BundleError, match=f"'weights.safetensors' has {size - 8} bytes, {size} were written"):
        restored(folder)
    weights.unlink()
    with pytest.raises(BundleError, match="cannot read 'weights.safetensors': No such file or directory"):
        restored(folder)
    (folder / "record" / records.RECORD).write_bytes(b"")
    with pytest.raises(BundleError, match="the record of what was done is damaged"):
        restored(folder)
    (folder / "record" / records.RECORD).unlink()
    with pytest.raises(BundleError, match="cannot read 'record': No such file or directory"):
        restored(folder)


def test_another_kind_of_record_is_not_understood(folder: Path) -> None:
    with pytest.raises(BundleError, match="the record of what was done is not understood: Object contains"):
        read_record(folder / "record", TaskRecord)
