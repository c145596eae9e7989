"""Builds that are killed and go on: the same bundle comes out, and nothing half-written is ever used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from anyport.build import build, resuming, steps
from anyport.build.records import RECORD, TaskRecord, read_record
from anyport.build.resuming import open_ledger, open_staging
from anyport.build.task_proving import TaskAnswers
from anyport.bundle import open_bundle, read_proof
from anyport.bundle.workshop import leftovers, open_workshop
from anyport.errors import BundleError, SourceError, UsageError
from anyport.recipe import OtherTask
from anyport.runtime import open_session
from anyport.task.rehearsals import TaskAnswer, TaskRequest
from tests.build.streaming import HOW, STREAMED, Told, model_in, plan_in, write_checkpoint
from tests.recipe.qwen_folders import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.build import BuildPlan
    from anyport.build.plan import BuildSettings
    from anyport.bundle import Staging

PROGRAM = Path(__file__).parent / "stop_streamed.py"
AFTER_FIRST = "export second"  # the first part is proven, the second one exported
_forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks builds that are killed: needs fork()")


# ── kill -9 ─────────────────────────────────────────────────────────────────────────────────────────────
def killed(folder: Path, what: str, *stride: str) -> tuple[list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), what, str(folder), *stride],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found["stops"], found["seal"]


MOMENTS = {  # what the build does when it is killed -> how many parts are done
    r"open .*/first/fp32/model.onnx": 0,  # the weights are copied
    r"open .*half.part.first/record$": 0,  # between the files of a record
    r"told export second": 1,
    r"os.rename .*/new$": 2,  # all is sealed
}


@_forks
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    stops, seal = killed(tmp_path, ",".join(MOMENTS))
    assert [stop["killed"] for stop in stops] == [-signal.SIGKILL] * len(MOMENTS)
    for stop, n_done in zip(stops, MOMENTS.values(), strict=True):
        done, others = list(STREAMED[:n_done]), [*STREAMED[n_done:], "last"]
        assert (stop["output"], stop["n_done"], stop["again"]) == (False, n_done, 0), stop
        assert (stop["resumed"], stop["exported"]) == (done, others), stop
        assert stop["others"] == ["m.port", "m.report.json"]
        assert stop["seal"] == seal, stop


@_forks
@pytest.mark.slow
@pytest.mark.parametrize("what", ["every", "again"])
def test_it_may_be_killed_wherever_it_writes(what: str, tmp_path: Path) -> None:
    stops, seal = killed(tmp_path, what, "4")  # each of the 57 writes was tried by hand
    *stops, unharmed = stops
    assert unharmed["killed"] == 0
    assert len(stops) >= 8
    for stop in stops:
        assert stop["killed"] == -signal.SIGKILL
        if stop["output"]:  # it was killed after the bundle had its name; it is whole
            continue
        assert stop["again"] == 0, stop
        assert len(stop["resumed"]) == stop["n_done"], stop
        assert stop["others"] == ["m.port", "m.report.json"]
        assert stop["seal"] == seal, stop
    assert max(stop["n_done"] for stop in stops) == len(STREAMED)


# ── Ctrl-C, errors ──────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(name="stopped", scope="module")
def _stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint, and what a build left that was stopped in its second part."""
    folder = tmp_path_factory.mktemp("stopped")
    write_checkpoint(folder / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "find_model", lambda _: model_in(folder / "checkpoint"))
        told = Told(AFTER_FIRST)
        with pytest.raises(KeyboardInterrupt):
            build(plan_in(folder), told)
    (folder / "told.json").write_text(json.dumps(told.lines[-1]))
    return folder


@pytest.fixture(name="folder")
def _folder(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it, for a test to go on with."""
    folder = Path(shutil.copytree(stopped, tmp_path / "copy"))
    monkeypatch.setattr(steps, "find_model", lambda _: model_in(folder / "checkpoint"))
    return folder


def hidden(folder: Path) -> Path:
    (found,) = leftovers(folder / "m.port")
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def go_on(plan: BuildPlan, stop_at: str = "export") -> Told:
    """Build until a line is told."""
    told = Told(stop_at)
    with pytest.raises(KeyboardInterrupt):
        build(plan, told)
    return told


def test_a_build_that_is_stopped_keeps_what_is_done_and_says_so(stopped: Path) -> None:
    place = hidden(stopped)
    assert names_in(place) == [
        "done/part.first/answers.safetensors",
        "done/part.first/record",
        "lock",
        "new/parts/first/fp32/model.onnx",
        "new/parts/first/fp32/modules.json",
        "new/parts/first/fp32/weights.safetensors",
    ]
    n_bytes = sum((place / name).stat().st_size for name in names_in(place))
    step, text = json.loads((stopped / "told.json").read_text())
    size = f"{n_bytes / 1000:.1f} kB"
    assert step == "resume"
    assert text == (
        f"what is done stays, {size}: the same command goes on from there, and rm -r '{place}' removes it"
    )
    assert not (stopped / "m.port").exists()


def test_the_next_build_goes_on_and_leaves_nothing(folder: Path) -> None:
    told = Told()
    result = build(plan_in(folder), told)
    line = ("resume", "first   was exported and proven by a build that did not end")
    assert line in told.lines
    assert told.lines[told.lines.index(line) + 1] == ("resume", result.verdicts[0].summary())
    assert told.parts("export") == ["second", "last"]
    assert sorted(path.name for path in folder.iterdir() if "m." in path.name) == ["m.port", "m.report.json"]
    with open_bundle(result.path) as bundle:
        bundle.check()
        assert list(read_proof(bundle).parts) == ["first", "second", "last"]


def test_it_may_be_stopped_again_and_again(folder: Path) -> None:
    place = hidden(folder)
    before = names_in(place)
    told = go_on(plan_in(folder), "resume first")
    assert names_in(place) == before
    assert told.lines[-1][1].startswith("what is done stays, ")
    go_on(plan_in(folder), AFTER_FIRST)
    assert names_in(place) == before
    assert hidden(folder) == place


def test_a_graph_that_refers_to_its_checkpoint_is_opened_there(folder: Path) -> None:
    plan = plan_in(folder, weights="reference", attention=None)
    go_on(plan, "export last")
    told = Told()
    with open_staging(plan, told) as staging:
        found = open_ledger(staging, model_in(folder / "checkpoint"), plan, told).proven()
        assert told.parts("resume") == ["first", "second"]
        for one in found[:2]:
            assert one.weights_folder == folder / "checkpoint"
            assert one.entry.external
            case, answer = one.recorder.kept[0]
            session = open_session(one.graph.path, one.options)
            got = session.run(case.arrays(session.inputs))
            session.close()
            np.testing.assert_allclose(got["y"], answer.outputs["y"], atol=1e-5)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_a_stop_before_anything_is_done_leaves_nothing(error: BaseException, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    told = Told("source", error)
    with pytest.raises(type(error)):
        build(plan_in(other), told)
    assert list(other.iterdir()) == []
    assert "resume" not in [step for step, _ in told.lines]


def test_a_second_stop_while_the_first_is_answered_costs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, calls = hidden(folder), []

    def impatient(staging: Staging) -> None:
        calls.append(staging)
        if len(calls) > 1:  # the first one is that of `open_ledger`
            raise KeyboardInterrupt

    monkeypatch.setattr(resuming, "prune", impatient)
    go_on(plan_in(folder), "resume first")
    assert len(calls) == 2
    assert "done/part.first/record" in names_in(place)


def test_an_error_leaves_what_is_done(folder: Path) -> None:
    told = Told(AFTER_FIRST, BundleError("the disk is full"))
    with pytest.raises(BundleError):
        build(plan_in(folder), told)
    assert told.parts("resume") == ["first"]
    assert told.lines[-1][1].startswith("what is done stays, ")
    assert "done/part.first/record" in names_in(hidden(folder))
    again = Told()
    build(plan_in(folder), again)
    assert again.parts("resume") == ["first"]
    assert leftovers(folder / "m.port") == []


def test_an_error_before_anything_was_looked_at_costs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = hidden(folder)
    before = names_in(place)

    def absent(_: object) -> None:
        raise SourceError("the disk is not there")

    monkeypatch.setattr(steps, "find_model", absent)
    told = Told()
    with pytest.raises(SourceError):
        build(plan_in(folder), told)
    assert told.lines[0][1].endswith(f"rm -r '{place}' removes it")
    (folder / "m.port").mkdir()
    (folder / "m.port" / "mine").touch()
    with pytest.raises(UsageError, match="'m.port' exists already"):
        build(plan_in(folder), Told())
    assert names_in(place) == before


def test_what_is_replaced_comes_back_when_the_build_was_killed_while_it_did_so(folder: Path) -> None:
    place = hidden(folder)
    (place / "old").mkdir()
    (place / "old" / "SEAL").write_text("old")
    go_on(plan_in(folder, replace(HOW, force=True)), "resume first")
    assert (folder / "m.port" / "SEAL").read_text() == "old"
    assert not (place / "old").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_the_command_line_is_terminated_and_goes_on(tmp_path: Path) -> None:
    """The tiny pipeline, as services and CI end a program; the answers of the original stay, too."""
    write_folder(tmp_path / "tiny")
    few = ["--max-cases", "1", "--max-case-bytes", "64KB", "--allow", "inconclusive"]
    words = [sys.executable, "-m", "anyport", "build", "tiny", "--weights", "reference", "-o", "m.port", *few]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "SOURCE_DATE_EPOCH": "1"}
    seen = []
    with subprocess.Popen(
        words, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            seen.append(line)
            if line.startswith("  export    text_encoder"):
                child.terminate()
        child.wait(60)
    assert child.returncode == 143
    assert seen[-1].startswith("  resume    what is done stays, ")
    assert seen[-1].endswith(f" rm -r '{hidden(tmp_path)}' removes it\n")
    done = subprocess.run(
        words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=600
    )
    told = [(line[2:11].strip(), line[12:]) for line in done.stdout.splitlines()]
    assert ("resume", "the original program has answered a build that did not end") in told
    named = [(step, text.partition(" ")[0]) for step, text in told]
    resumed = [name for step, name in named if step == "resume" and name.endswith("coder")]
    exported = [name for step, name in named if step == "export"]
    assert resumed == ["vision_encoder"]
    assert exported == ["text_encoder", "vae_encoder", "transformer", "vae_decoder"]
    assert leftovers(tmp_path / "m.port") == []
    with open_bundle(tmp_path / "m.port") as bundle:
        bundle.check()


# ── what is not used ────────────────────────────────────────────────────────────────────────────────────
def new_weights(folder: Path) -> None:
    file = folder / "checkpoint" / "first" / "model.safetensors"
    state = load_file(file)
    state["head.weight"] *= 2
    save_file(state, file)


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = hidden(folder) / name
        path.write_bytes(path.read_bytes()[:-4])

    return change


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(hidden(folder) / name)


_OTHER = "not what the build that did not end had"
_FILES = "new/parts/first/fp32"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (new_weights, f"the weights are {_OTHER}"),
        (cut(f"done/part.first/{RECORD}"), "the record of what was done is damaged"),
        (
            cut("done/part.first/answers.safetensors"),
            "'answers.safetensors' has 2120 bytes, 2124 were written",
        ),
        (cut(f"{_FILES}/weights.safetensors"), "'weights.safetensors' has"),
        (gone("new"), "cannot read 'model.onnx': No such file or directory"),
    ],
    ids=["checkpoint", "record", "answers", "weights", "files"],
)
def test_what_is_of_other_things_or_damaged_is_made_anew(
    change: Callable[[Path], None], why: str, folder: Path
) -> None:
    change(folder)
    told = go_on(plan_in(folder))
    assert told.parts("export") == ["first"]
    lines = [text for step, text in told.lines if step == "resume"]
    assert len(lines) == 1
    assert lines[0].startswith(f"first   made anew: {why}")
    assert leftovers(folder / "m.port") == []


@pytest.mark.parametrize(
    ("how", "made", "what"),
    [
        (HOW, {"weights": "reference", "attention": None}, "the options are"),
        (replace(HOW, seed=3), {}, "the model and the options are"),
        (replace(HOW, source_date_epoch=None), {}, "the model is"),
    ],
    ids=["reference", "seed", "time"],
)
def test_other_options_are_told(how: BuildSettings, made: dict[str, Any], what: str, folder: Path) -> None:
    told = go_on(plan_in(folder, how, **made))
    assert ("resume", f"first   made anew: {what} {_OTHER}") in told.lines
    assert told.parts("export") == ["first"]


def test_what_lies_beside_the_files_of_a_part_goes(folder: Path) -> None:
    (hidden(folder) / _FILES / "onnxruntime.onnx").write_bytes(b"fused, perhaps half-written")
    (hidden(folder) / "done" / "half.part.second").mkdir()
    (hidden(folder) / "new" / "assets").mkdir()
    told = go_on(plan_in(folder), AFTER_FIRST)
    assert told.parts("resume") == ["first"]
    assert len(names_in(hidden(folder))) == 6


def test_a_build_that_loads_its_weights_goes_on_with_nothing(folder: Path) -> None:
    with open_staging(plan_in(folder, weights=None), Told()) as staging:
        assert list(staging.folder.iterdir()) == []
        assert leftovers(folder / "m.port") == [staging.folder.parent]
    assert leftovers(folder / "m.port") == []


def test_a_build_that_lives_is_not_touched(folder: Path) -> None:
    living = hidden(folder)
    before = names_in(living)
    workshop = open_workshop(folder / "m.port", resume=True)
    assert workshop.folder == living
    told = go_on(plan_in(folder))
    assert told.parts("resume") == []
    assert leftovers(folder / "m.port") == [living]
    assert names_in(living) == before
    workshop.leave()


# ── the answers of the original program ─────────────────────────────────────────────────────────────────
def answers() -> TaskAnswers:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (8, 6, 3), np.uint8)
    request = TaskRequest(
        "one", {"prompt": "赤", "steps": 4, "scale": 2.5}, [picture], {"noise": np.ones(3, "f4")}
    )
    answer = TaskAnswer(random.random((8, 6, 3), np.float32), {"first": np.full((2, 2), 0.1, np.float32)})
    return TaskAnswers("edit", [(request, answer)])


def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, how: BuildSettings = HOW) -> tuple[Any, Told, int]:
    """Ask for the answers in a build that is stopped then: what they are, what was told, who answered."""
    asked = []

    def original(*_: object) -> TaskAnswers | None:
        asked.append(1)
        return None if "unproven-task" in how.allow else answers()

    monkeypatch.setattr(resuming, "ask_original", original)
    model = replace(
        model_in(folder / "checkpoint"),
        task="edit",
        task_cases=lambda _: [],
        others={"x": OtherTask(frozenset(), {})},
    )
    told, plan = Told(), plan_in(folder, how)
    found = []

    def stopped() -> None:
        with open_staging(plan, told) as staging:
            found.append(open_ledger(staging, model, plan, told).asked())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    return found[0], told, len(asked)


def test_the_original_program_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    _, _, n_asked = ask(tmp_path, monkeypatch)
    assert n_asked == 1
    found, told, n_asked = ask(tmp_path, monkeypatch)
    assert n_asked == 0
    assert told.lines[0] == ("resume", "the original program has answered a build that did not end")
    ((request, answer),), ((wanted, expected),) = found.recorded, answers().recorded
    assert (request.name, request.words, found.task) == (wanted.name, wanted.words, "edit")
    for one, other in (
        (request.pictures[0], wanted.pictures[0]),
        (request.arrays["noise"], wanted.arrays["noise"]),
        (answer.picture, expected.picture),
        (answer.between["first"], expected.between["first"]),
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    record = read_record(hidden(tmp_path) / "done" / "task", TaskRecord)
    assert [entry.path for entry in record.files] == ["proof/task.json", "proof/task.safetensors"]


def test_answers_that_are_damaged_or_not_wanted_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    ask(tmp_path, monkeypatch)
    found, told, n_asked = ask(tmp_path, monkeypatch, replace(HOW, allow=HOW.allow | {"unproven-task"}))
    assert (found, n_asked) == (None, 1)
    file = hidden(tmp_path) / "done" / "task" / "proof" / "task.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    found, told, n_asked = ask(tmp_path, monkeypatch)
    assert n_asked == 1
    assert told.lines[0] == (
        "resume",
        "the original program's answers   made anew: 'proof/task.safetensors' is not what was written",
    )
    assert ask(tmp_path, monkeypatch)[2] == 0
