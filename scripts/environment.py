"""The virtual environments of `make demo` and `make test`; standard library only.

An environment is made once and kept: a stamp in it says what was installed, and a second call with the same
pyproject.toml, constraints.txt and (for a copy that is not editable) sources does nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
MIN_PYTHON = (3, 11)
_REACH_TIMEOUT_S = 10
_N_LOG_LINES = 25


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with anyport in it.

    Attributes:
        folder: Where it lies, from the root of the repository.
        extra: The extra of pyproject.toml to install; empty for the base install.
        download: What comes over the wire the first time, in words.
        has_torch: Whether the extra needs PyTorch.
        is_editable: Whether anyport is the source tree itself or an installed copy.
    """

    folder: str
    extra: str
    download: str
    has_torch: bool = True
    is_editable: bool = True

    @property
    def path(self) -> Path:
        """The folder on disk."""
        return ROOT / self.folder

    def program(self, name: str) -> Path:
        """Return the path of an installed program, such as ``anyport``."""
        windows = sys.platform == "win32"
        return self.path / ("Scripts" if windows else "bin") / (f"{name}.exe" if windows else name)


BUILD = Environment(".venv", "edit", "about 300 MB: PyTorch for the CPU, diffusers, ONNX tools")
DEV = Environment(".venv", "dev", "about 360 MB: PyTorch for the CPU, ONNX tools, test tools")
RUN = Environment(
    ".venv-run",
    "text",
    "about 55 MB: numpy, onnxruntime, pillow, tokenizers",
    has_torch=False,
    is_editable=False,
)


def ensure(environment: Environment) -> None:
    """Make the environment, or bring it up to date; a second call is quick.

    Raises:
        SystemExit: Python is too old, or pip failed; the message says what pip said.
    """
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        sys.exit(
            f"this is Python {sys.version.split()[0]}; anyport needs {wanted}: make PYTHON=python{wanted} ..."
        )
    stamp = environment.path / f"anyport-{environment.extra or 'base'}.stamp"
    digest = _digest(environment)
    if stamp.exists() and stamp.read_text() == digest:
        return
    started_s = time.monotonic()
    print(f"installing into {environment.folder} ({environment.download}; later runs reuse it)", flush=True)
    if not environment.program("python").exists():
        _quietly([sys.executable, "-m", "venv", str(environment.path)], "making the environment")
    if environment.has_torch:
        _install_torch(environment)
    _install_anyport(environment)
    stamp.write_text(digest)
    print(f"installed in {time.monotonic() - started_s:.0f} s\n", flush=True)


def _digest(environment: Environment) -> str:
    """Return what the installation depends on, as one word."""
    files = [ROOT / "pyproject.toml", CONSTRAINTS]
    if not environment.is_editable:
        tree = sorted((ROOT / "src").rglob("*"))
        files += [path for path in tree if path.is_file() and "__pycache__" not in path.parts]
    parts = [
        (path.relative_to(ROOT).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files
    ]
    return hashlib.sha256(json.dumps([sys.version, parts]).encode()).hexdigest()


def _install_anyport(environment: Environment) -> None:
    target = f"{ROOT}[{environment.extra}]" if environment.extra else str(ROOT)
    how = ["--editable", target] if environment.is_editable else [target]
    doing = f"installing anyport into {environment.folder}"
    _quietly(_pip(environment, "install", "--constraint", str(CONSTRAINTS), *how), doing)
    if not environment.is_editable:  # pip may keep an installed copy of the same version
        _quietly(
            _pip(environment, "install", "--no-deps", "--force-reinstall", str(ROOT)), "installing anyport"
        )


def _install_torch(environment: Environment) -> None:
    """Install the CPU build where pip can find one.

    Elsewhere than on Linux the package index's own build is the CPU build. On Linux that one pulls CUDA in;
    the CPU build has the local version "+cpu"; pip finds it by its own configuration or ``TORCH_INDEX``.
    """
    if not sys.platform.startswith("linux"):
        return
    version = _pinned("torch")
    cpu_build = _pip(environment, "install", "--no-deps", f"torch=={version}+cpu")
    if _has_torch(environment) or _run(cpu_build).returncode == 0:
        return
    index = os.environ.get("TORCH_INDEX", "none")
    if index != "none" and _is_reachable(index):
        _quietly([*cpu_build, "--index-url", index], f"installing PyTorch from {index}")
        return
    print(
        f"  no CPU build of PyTorch {version} found (TORCH_INDEX={index}): the package index's own build\n"
        "  follows, which brings CUDA: several GB. Ctrl-C stops this; TORCH_INDEX=URL names another index.",
        flush=True,
    )


def _has_torch(environment: Environment) -> bool:
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    return _run([str(environment.program("python")), "-c", probe]).returncode == 0


def _is_reachable(index: str) -> bool:
    request = urllib.request.Request(f"{index.rstrip('/')}/torch/", method="HEAD")  # noqa: S310 -- the user's own setting
    try:
        with urllib.request.urlopen(request, timeout=_REACH_TIMEOUT_S):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", CONSTRAINTS.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"constraints.txt pins no {package}")
    return found.group(1)


def _pip(environment: Environment, *arguments: str) -> list[str]:
    return [str(environment.program("python")), "-m", "pip", "--disable-pip-version-check", *arguments]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=ROOT
    )


def _quietly(command: list[str], doing: str) -> None:
    """Run a command; its output is shown only when it fails."""
    done = _run(command)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-_N_LOG_LINES:])
        sys.exit(f"{doing} failed: {' '.join(command)}\n{last}")
