"""Wrong and unusual input of BLIP, from the shell: a clear message each, and nothing is half-written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from anyport.build import BuildPlan, build, describe
from tests.build.building import QUICK, silent
from tests.cli import blip_inputs as given
from tests.recipe.blip_folders import write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Outcome, Shell

MODELS: Final = {
    "answer": "BlipForQuestionAnswering",
    "caption": "BlipForConditionalGeneration",
    "match": "BlipForImageTextRetrieval",
}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one bundle for each task, and the pictures and texts of `blip_inputs`."""
    folder = tmp_path_factory.mktemp("blip")
    how = replace(QUICK, max_cases=2, allow=frozenset({"inconclusive"}))  # the proof is tested elsewhere
    for task, architecture in MODELS.items():
        write_folder(architecture, folder / task, n_layers=1)
        plan = BuildPlan(describe({"model": {"source": task}}, "test"), folder, folder / f"{task}.port", how)
        build(plan, silent)
    given.write_pictures(folder)
    for name, (content, _) in given.TEXT_FILES.items():
        (folder / name).write_bytes(content)
    (folder / "texts.txt").write_text("a cat\nred\n", encoding="utf-8")
    return folder


@pytest.fixture
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


WORDS_OF: Final = {
    "answer": ("--question", "what colour is it?", "--max-new-tokens", "4"),
    "caption": ("--max-new-tokens", "4"),
    "match": ("--texts", "texts.txt"),
}


def run(shell: Shell, task: str, *pictures: str) -> Outcome:
    return shell("run", f"{task}.port", *pictures, *WORDS_OF[task], "--json")


def told(found: Outcome) -> str:
    """Return the message of a command that ended in wrong use, which printed nothing else."""
    assert (found.code, found.out) == (2, "")
    return found.err


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("task", MODELS)
def test_every_kind_of_picture_means_a_plain_one(shell: Shell, task: str) -> None:
    names = list(given.PICTURES)
    plain = [meant or name for name, meant in given.PICTURES.items()]
    found, expected = run(shell, task, *names), run(shell, task, *plain)
    assert (found.code, found.err) == (0, "")
    answers = [nameless(answer) for answer in found.record["answers"]]
    assert answers == [nameless(answer) for answer in expected.record["answers"]]
    assert len({str(answer) for answer in answers}) > len(names) // 2, "they differ among each other"


def nameless(answer: dict[str, Any]) -> dict[str, Any]:
    matches = [{k: v for k, v in one.items() if k != "file"} for one in answer.get("matches", [])]
    return {k: v for k, v in answer.items() if k != "file"} | {"matches": matches}


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("name", given.REFUSED)
@pytest.mark.parametrize("task", MODELS)
def test_a_picture_that_means_nothing_stops_all(shell: Shell, task: str, name: str) -> None:
    message = told(shell("run", f"{task}.port", "plain.png", name, *WORDS_OF[task]))
    assert message.startswith(f"InputError: {name} {given.REFUSED[name]}")


@pytest.mark.usefixtures("in_place")
def test_names_that_name_nothing(shell: Shell) -> None:
    assert told(shell("run", "caption.port", "nope.png")) == "InputError: there is no file nope.png\n"
    assert told(shell("run", "caption.port", "")).startswith("InputError: a picture has an empty name")
    assert told(shell("run", "caption.port")).startswith("UsageError: no picture is given")


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("text", given.TEXTS.values(), ids=given.TEXTS)
def test_any_words_are_read(shell: Shell, text: str) -> None:
    asked = shell("run", "answer.port", "plain.png", "--question", text)
    begun = shell("run", "caption.port", "plain.png", "--prompt", text)
    for found in (asked, begun):
        assert (found.code, len(found.out.splitlines()), found.err) == (0, 1, "")


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("", "is empty"),
        ("  \t\n", "is empty"),
        ("\u200b", "has no words that the model reads"),
        ("\udcff", "holds half a character (a lone surrogate)"),
        (given.LONG, f"has 1667 tokens, {given.N_FIT} fit\n  do:    shorten it, or ask for a cut: "),
    ],
)
def test_a_question_that_is_none(shell: Shell, question: str, why: str) -> None:
    message = told(shell("run", "answer.port", "plain.png", "--question", question))
    assert message.startswith(f"InputError: the question for plain.png {why}")


@pytest.mark.usefixtures("in_place")
def test_what_is_cut_is_said(shell: Shell) -> None:
    for task, option, what, fit in (
        ("answer", "--question", "question", given.N_FIT),
        ("caption", "--prompt", "prompt", 43),
    ):
        words = ("run", f"{task}.port", "plain.png", option, given.LONG)
        assert told(shell(*words)).startswith(
            f"InputError: the {what} for plain.png has 1667 tokens, {fit} fit"
        )
        found = shell(*words, "--truncate")
        assert (found.code, len(found.out.splitlines())) == (0, 1)
        assert found.err == f"note: the {what} is too long: its last {1667 - fit} tokens were left out\n"
        [answer] = shell(*words, "--truncate", "--json").record["answers"]
        assert answer["n_truncated"] == 1667 - fit
    matched = shell("run", "match.port", "plain.png", "--texts", "long.txt", "--truncate")
    assert matched.err.endswith(f"…' is too long: its last {1667 - given.N_FIT} tokens were left out\n")


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("name", given.TEXT_FILES)
def test_files_of_texts(shell: Shell, name: str) -> None:
    message = told(shell("run", "match.port", "plain.png", "--texts", name))
    assert message.startswith(f"InputError: {given.TEXT_FILES[name][1]}")


@pytest.mark.usefixtures("in_place")
def test_files_of_texts_that_are_none(shell: Shell) -> None:
    assert told(shell("run", "match.port", "plain.png", "--texts", "nope.txt")) == (
        "InputError: nope.txt cannot be read: No such file or directory\n"
    )
    assert told(shell("run", "match.port", "plain.png", "--texts", "folder.png")) == (
        "InputError: folder.png cannot be read: Is a directory\n"
    )


# ── nothing half-written ────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in several files, which is whole."""
    folder = write_folder(MODELS["caption"], tmp_path_factory.mktemp("shards") / "tiny", n_layers=1)
    given.write_shards(folder)
    return folder


@pytest.mark.parametrize("name", given.CHECKPOINTS)
def test_a_checkpoint_that_is_not_whole(
    shell: Shell, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spoil, message = given.CHECKPOINTS[name]
    given.spoilt(shards, tmp_path, spoil)
    monkeypatch.chdir(tmp_path)
    found = shell("build", "tiny", "-o", "blip.port")
    assert told(found).startswith(f"SourceError: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"], "hidden folders are seen, too"
    as_json = shell("build", "tiny", "-o", "blip.port", "--json")
    assert (as_json.code, as_json.record["error"]["kind"]) == (2, "SourceError")


def test_a_bundle_that_exists_is_not_touched(shell: Shell, shards: Path, tmp_path: Path, place: Path) -> None:
    kept = place / "caption.port"
    before = (kept / "manifest.json").read_bytes()
    given.spoilt(shards, tmp_path, given.CHECKPOINTS["a missing shard"][0])
    found = shell("build", tmp_path / "tiny", "-o", kept, "--force")
    assert (found.code, found.out) == (2, "")
    assert (kept / "manifest.json").read_bytes() == before
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]
