"""`pip install anyport` without extras: what it brings, how large it is, and that it runs a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from tests.house import tree

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE_BYTES: Final = 190 * 10**6
_HEAVY: Final = {"onnx", "onnx_ir", "onnxscript", "safetensors", "sympy", "torch", "transformers"}
_TIMEOUT_S: Final = 600


@dataclass(frozen=True, slots=True)
class Install:
    """A virtual environment that holds the base install and nothing else: pip works on it from outside."""

    folder: Path

    @property
    def site_packages(self) -> Path:
        """Where the packages lie."""
        [found] = self.folder.glob("lib/python3*/site-packages")
        return found

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run an installed program far from the source tree."""
        outside = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        return subprocess.run(
            [self.folder / "bin" / program, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
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
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    folder = tmp_path_factory.mktemp("base")
    need_registry(folder / "probe")
    built = pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "wheel"), ".")
    assert not built.returncode, built.stderr
    [wheel] = (folder / "wheel").glob("anyport-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    into = ("--python", str(folder / "venv" / "bin" / "python"))
    done = pip(*into, "install", "--quiet", "--constraint", "constraints.txt", str(wheel))
    assert not done.returncode, done.stderr
    return Install(folder / "venv")


@pytest.mark.slow
def test_it_brings_nothing_that_builds(install: Install) -> None:
    names = {path.name for path in install.site_packages.iterdir()}
    assert not names & _HEAVY


@pytest.mark.slow
def test_it_is_small(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    sizes: dict[str, int] = {}
    for path in install.site_packages.rglob("*"):
        if path.is_file():
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
