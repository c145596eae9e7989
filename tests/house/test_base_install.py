"""`pip install anyport`, and `anyport[text]`: what they bring, how large it is, and that they run bundles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from PIL import Image

import anyport
from anyport.build import BuildPlan, build, describe
from tests.build.building import QUICK, silent
from tests.house import tree
from tests.recipe.blip_folders import write_folder

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE_BYTES: Final = 190 * 10**6
_HEAVY: Final = {"onnx", "onnx_ir", "onnxscript", "safetensors", "sympy", "torch", "transformers"}
_TIMEOUT_S: Final = 600
_TASKS: Final = {  # task -> the model it is built of, and what follows the picture on the command line
    "answer": ("BlipForQuestionAnswering", ("--question", "what colour is it?")),
    "caption": ("BlipForConditionalGeneration", ("--prompt", "a photo of", "--beams", "3")),
    "embed": ("BlipForImageTextRetrieval", ("--mode", "multimodal", "--texts", "texts.txt", "-o", "out.npz")),
    "match": ("BlipForImageTextRetrieval", ("--texts", "texts.txt")),
}


@dataclass(frozen=True, slots=True)
class Install:
    """A virtual environment that holds one install and nothing else: pip works on it from outside."""

    folder: Path

    @property
    def site_packages(self) -> Path:
        """Where the packages lie."""
        [found] = self.folder.glob("lib/python3*/site-packages")
        return found

    def run(self, program: str, *words: str, at: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run an installed program far from the source tree."""
        outside = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        return subprocess.run(
            [self.folder / "bin" / program, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=at or self.folder,
            env=outside,
            timeout=_TIMEOUT_S,
        )


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tree.ROOT, timeout=_TIMEOUT_S
    )


def need_registry(folder: Path) -> None:
    """Skip where no package can be had; the build machine says CI, and there that is a failure."""
    probe = pip("download", "--no-deps", "--quiet", "--retries", "1", "--dest", str(folder), "hatchling")
    if probe.returncode and "CI" not in os.environ:
        pytest.skip("no package registry can be reached")
    assert not probe.returncode, probe.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    need_registry(folder / "probe")
    built = pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), ".")
    assert not built.returncode, built.stderr
    [found] = folder.glob("anyport-*.whl")
    return found


def installed(folder: Path, requirement: str) -> Install:
    """Return a new environment with this and what it needs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    into = ("--python", str(folder / "bin" / "python"))
    done = pip(*into, "install", "--quiet", "--constraint", "constraints.txt", requirement)
    assert not done.returncode, done.stderr
    return Install(folder)


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    return installed(tmp_path_factory.mktemp("base") / "venv", str(wheel))


@pytest.fixture(scope="module")
def with_text(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    return installed(tmp_path_factory.mktemp("text") / "venv", f"{wheel}[text]")


@pytest.mark.slow
def test_it_brings_nothing_that_builds(install: Install) -> None:
    names = {path.name for path in install.site_packages.iterdir()}
    assert not names & _HEAVY


@pytest.mark.slow
def test_it_is_small(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    sizes: dict[str, int] = {}
    demo = install.site_packages / "anyport" / "demo"  # models, which are the wheel's business: test_model.py
    for path in install.site_packages.rglob("*"):
        if path.is_file() and demo not in path.parents:
            top = path.relative_to(install.site_packages).parts[0]
            sizes[top] = sizes.get(top, 0) + path.stat().st_blocks * 512
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    listed = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in largest)
    total = sum(sizes.values())
    with capsys.disabled():
        print(f"\nbase install: {total / 1e6:.0f} MB on disk ({listed})")  # noqa: T201 -- a figure to see
    assert total <= MAX_SIZE_BYTES, f"{total / 1e6:.0f} MB"


@pytest.mark.slow
def test_the_demo_runs(install: Install) -> None:
    done = install.run("anyport", "demo")
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
    loaded = install.run("python", "-c", "import sys, anyport.task; print('torch' in sys.modules)")
    assert loaded.stdout.strip() == "False", loaded.stderr


# ── tasks with words ────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `TASK.port` for every task, built by the environment of the tests; a picture; texts."""
    folder = tmp_path_factory.mktemp("bundles")
    how = replace(QUICK, max_cases=2, allow=frozenset({"inconclusive"}))  # what is proven is tested elsewhere
    for task, (architecture, _) in _TASKS.items():
        write_folder(architecture, folder / architecture, n_layers=1)
        description = describe({"model": {"source": architecture, "task": task}}, "test")
        build(BuildPlan(description, folder, folder / f"{task}.port", how), silent)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).resize((70, 90)).save(folder / "a.png")
    (folder / "texts.txt").write_text("two cats\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_extra_for_text_brings_no_torch(with_text: Install) -> None:
    names = {path.name for path in with_text.site_packages.iterdir()}
    assert "tokenizers" in names
    assert not names & _HEAVY


@pytest.mark.slow
@pytest.mark.parametrize("task", _TASKS)
def test_a_task_answers_as_where_it_was_built(
    with_text: Install, bundles: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", f"{task}.port", "a.png", *_TASKS[task][1])
    done = with_text.run("anyport", *words, "--json", at=bundles)
    assert done.returncode == 0, done.stderr
    shown = with_text.run("anyport", *words, *(["--force"] if task == "embed" else []), at=bundles)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.strip()
    monkeypatch.chdir(bundles)
    options = {"embed": {"mode": "multimodal", "texts": "texts.txt"}, "match": {"texts": "texts.txt"}}
    options |= {"answer": {"question": "what colour is it?"}, "caption": {"prompt": "a photo of", "beams": 3}}
    with anyport.open_task(bundles / f"{task}.port") as here:
        expected = here.answer(["a.png"], options[task]).record
    found = json.loads(done.stdout)
    assert without_numbers(found["answers"]) == without_numbers(expected["answers"])
    if task == "embed":
        with np.load(bundles / "out.npz", allow_pickle=False) as arrays:  # noqa: TID251 -- our own file
            assert list(arrays["states"].shape) == expected["outputs"]["states"]["shape"]


def without_numbers(answers: Any) -> Any:
    """Leave scores out: another version of the runtime may round them otherwise; texts and tokens stay."""
    if isinstance(answers, list):
        return [without_numbers(one) for one in answers]
    if isinstance(answers, dict):
        return {key: without_numbers(one) for key, one in answers.items()}
    return None if isinstance(answers, float) else answers


@pytest.mark.slow
def test_without_the_extra_it_is_named(install: Install, bundles: Path) -> None:
    done = install.run("anyport", "run", "caption.port", "a.png", at=bundles)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'anyport[text]'" in done.stderr
