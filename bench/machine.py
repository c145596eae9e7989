"""Names the machine that a measurement was made on: CPU, instruction sets, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

# What decides how fast a kernel is; everything else a CPU can do is left out of the line.
_TELLING: Final = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
_PACKAGES: Final = ("numpy", "onnxruntime", "onnx", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, as far as it matters for a figure.

    Attributes:
        cpu: The name that the CPU gives itself.
        isa: Instruction sets, in the words of the operating system.
        n_cores: Cores that this process may use.
        system: Operating system and architecture.
        python: Version of the interpreter.
        packages: Versions of the installed packages that compute.
    """

    cpu: str
    isa: tuple[str, ...]
    n_cores: int
    system: str
    python: str
    packages: dict[str, str]

    def __str__(self) -> str:
        """Return two lines for the head of a table."""
        versions = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"machine: {self.cpu}, {self.n_cores} cores, {' '.join(self.isa) or 'ISA unknown'}; "
            f"{self.system}\n"
            f"with:    Python {self.python}, {versions or 'no packages that compute'}"
        )


def this_machine() -> Machine:
    """Describe the machine that runs this."""
    cpu, flags = _cpu()
    return Machine(
        cpu=cpu,
        isa=tuple(name for name in _TELLING if name in flags),
        n_cores=_n_cores(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(),
    )


def _n_cores() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux: a container may have fewer than the machine
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> tuple[str, frozenset[str]]:
    """Return the name and the flags of the first CPU."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        pairs = (line.partition(":") for line in described.read_text().splitlines())
        facts: dict[str, str] = {}
        for key, _, value in pairs:
            facts.setdefault(key.strip(), value.strip())
        flags = facts.get("flags") or facts.get("Features") or ""
        return facts.get("model name") or platform.machine(), frozenset(flags.split())
    if platform.system() == "Darwin":
        name = _sysctl("machdep.cpu.brand_string")
        flags = f"{_sysctl('machdep.cpu.features')} {_sysctl('machdep.cpu.leaf7_features')}".lower()
        is_arm = platform.machine() == "arm64"
        return name, frozenset(flags.split()) | ({"neon"} if is_arm else frozenset())
    return platform.processor() or platform.machine(), frozenset()


def _sysctl(name: str) -> str:
    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    print(this_machine())
