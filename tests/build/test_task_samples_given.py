"""Pictures and texts that a task cannot be judged by are told before the export."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from anyport.build import build, resuming
from anyport.build.task_compressing import check_task_samples, is_task_judged, text_notes
from anyport.errors import AnyportError, InputError, UsageError
from anyport.recipe import blip
from anyport.task.trials import TRIALS
from tests.build.building import silent
from tests.build.compressed_captioner import METHOD, N_PICTURES, plan_for
from tests.build.trained_blip import write_pictures
from tests.recipe.blip_folders import write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.recipe import Model


@dataclass(frozen=True)
class Given:
    """A captioner and pictures."""

    folder: Path
    model: Model


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("blip")
    write_folder("BlipForConditionalGeneration", folder / "tiny", n_layers=1)
    write_pictures(folder / "photos", N_PICTURES)
    return Given(folder, blip.load(folder / "tiny"))


def test_a_note_says_whose_texts_judge(given: Given) -> None:
    asking = replace(given.model, task="answer")
    [note] = text_notes(asking, plan_for(given.folder))
    assert note == f"judged with {len(TRIALS['answer'].texts)} texts of anyport's own, not yours"
    with_texts = plan_for(given.folder, calibrate={"samples": "photos", "texts": "texts.txt"})
    assert text_notes(asking, with_texts) == []
    assert text_notes(given.model, plan_for(given.folder)) == []


@pytest.mark.parametrize("made", [{"compress": [METHOD]}, {}], ids=["compressed", "exact"])
def test_texts_that_nobody_looks_at_are_refused(given: Given, made: dict[str, Any]) -> None:
    plan = plan_for(given.folder, build=made, calibrate={"samples": "photos", "texts": "texts.txt"})
    with pytest.raises(UsageError) as err:
        check_task_samples(replace(given.model, parts=given.model.parts[:1]), plan)
    assert err.value.what == "the texts of texts.txt are for a task that looks at pictures and texts"
    with pytest.raises(UsageError) as err:
        check_task_samples(given.model, plan)
    assert err.value.what == "the task 'caption' looks at pictures alone"
    assert err.value.do == "leave texts.txt out"


WRONG: dict[str, tuple[dict[str, Any], type[AnyportError], str]] = {
    "too few pictures": (
        {"calibrate": {"samples": "few"}},
        InputError,
        "60 samples of few (60 pictures) are too few, 64 are needed",
    ),
    "too few with ranges": (
        {"calibrate": {"samples": "some"}, "build": {"compress": ["int8"], "prefer": "size"}},
        InputError,
        "70 samples of some (70 pictures) are too few, 72 are needed",
    ),
    "texts for a captioner": (
        {"calibrate": {"samples": "photos", "texts": "texts.txt"}},
        UsageError,
        "the task 'caption' looks at pictures alone",
    ),
    "no texts": (
        {"calibrate": {"samples": "photos", "texts": "none.txt"}},
        InputError,
        "none.txt cannot be read: No such file or directory",
    ),
    "texts without pictures": (
        {"calibrate": {"samples": "calibrate.py:{part}", "texts": "texts.txt"}},
        UsageError,
        "the texts of texts.txt go with a folder of pictures, not with 'calibrate.py:{part}'",
    ),
    "a metric of one's own": (
        {"evaluate": {"function": "evaluate.py:{part}"}},
        UsageError,
        "[evaluate] is of one part, and a folder of pictures has the task judge as a whole",
    ),
    "another metric of a part": (
        {"metrics": {"image_embeds": "psnr"}},
        UsageError,
        "'image_embeds' is what a part gives on its way through the task: its metric is cosine, not psnr",
    ),
    "another metric of what the task answers": (
        {"metrics": {"tokens": "cosine:0.95"}},
        UsageError,
        "[metrics] has 'tokens' judged by cosine: what the task answers is judged by top-1",
    ),
    "a picture that is none": (
        {"calibrate": {"samples": "spoiled"}},
        InputError,
        "10070.png is no picture that anyport reads",
    ),
    "a metric of nothing": (
        {"metrics": {"image_embed": "cosine"}},
        UsageError,
        "[metrics] names 'image_embed', which is no output (did you mean 'image_embeds'?)",
    ),
}


@pytest.mark.parametrize(("tables", "kind", "text"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_judged_is_told_before_the_export(
    given: Given,
    monkeypatch: pytest.MonkeyPatch,
    tables: dict[str, Any],
    kind: type[AnyportError],
    text: str,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the export has begun")

    monkeypatch.setattr(resuming, "export_and_prove", refuse)
    for name, n in (("few", 60), ("some", 70)):
        if not (given.folder / name).exists():
            write_pictures(given.folder / name, n)
    if not (given.folder / "spoiled").exists():
        write_pictures(given.folder / "spoiled", N_PICTURES)
        (given.folder / "spoiled" / "10070.png").write_text("no picture", encoding="utf-8")
    (given.folder / "texts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    plan = plan_for(given.folder, **tables)
    with pytest.raises(kind) as err:
        build(replace(plan, output=given.folder / "other.port"), silent)
    assert err.value.what.endswith(text)
    assert not (given.folder / "other.port").exists()


def test_two_texts_are_needed_to_choose_from(given: Given, tmp_path: Path) -> None:
    folder = write_folder("BlipForImageTextRetrieval", tmp_path / "tiny", n_layers=1)
    model = blip.load(folder)
    shutil.copytree(given.folder / "photos", tmp_path / "photos")
    (tmp_path / "texts.txt").write_text("a cat\na cat\n", encoding="utf-8")
    plan = plan_for(tmp_path, calibrate={"samples": "photos", "texts": "texts.txt"})
    assert is_task_judged(model, plan)
    with pytest.raises(InputError) as err:
        check_task_samples(model, plan)
    assert err.value.what == "texts.txt holds 1 different texts, the task 'match' needs 2 or more"
    (tmp_path / "texts.txt").write_text("a cat\n" + "a dog " * 300 + "\n", encoding="utf-8")
    with pytest.raises(InputError) as err:
        check_task_samples(model, plan)
    assert err.value.what.startswith("text 'a dog a dog a dog a dog a dog a dog a do' has 600 tokens, ")
    assert (err.value.where, err.value.do) == ("texts.txt", "shorten it, or leave it out")
    assert not is_task_judged(replace(model, parts=model.parts[:1]), plan)
    assert not is_task_judged(model, plan_for(tmp_path, calibrate={"samples": "random"}))
