"""Where a number was measured: the processor, its instruction sets, the versions, how busy it was."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.bench.blank import Blank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CPU_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_BASE_PACKAGES: Final = ("anyport", "numpy", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a measurement depends on.

    Attributes:
        machine: The architecture, such as ``x86_64``.
        system: The operating system.
        python: Its version.
        cpu: The name of the processor.
        isa: The instruction sets that decide which kernels a runtime takes.
        n_cores: Cores that this process may use.
        load_per_core: Processes that wanted a core in the last minute, for each core; above 1 the wall times
            are those of a crowded machine.
        packages: Package -> version.
    """

    machine: str
    system: str
    python: str
    cpu: str
    isa: tuple[str, ...]
    n_cores: int
    load_per_core: float | Blank
    packages: Mapping[str, str]

    def lines(self) -> list[str]:
        """Return what a reader of the numbers must know."""
        load = "" if isinstance(self.load_per_core, Blank) else f", load {self.load_per_core:.2f} per core"
        versions = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return [
            f"{self.cpu} ({', '.join(self.isa) or self.machine}), {self.n_cores} cores{load}",
            f"{self.system}, Python {self.python}, {versions}",
        ]


def this_machine(packages: Iterable[str] = ()) -> Machine:
    """Describe the machine that this process runs on.

    Args:
        packages: Those whose versions matter, beside anyport, numpy and onnxruntime.
    """
    n_cores = _n_cores()
    return Machine(
        machine=platform.machine(),
        system=platform.system(),
        python=platform.python_version(),
        cpu=cpu_name(),
        isa=tuple(cpu_flags()),
        n_cores=n_cores,
        load_per_core=_load_per_core(n_cores),
        packages=package_versions((*_BASE_PACKAGES, *packages)),
    )


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return package -> version for those that are installed, without importing them."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """Return the name of the processor, as far as the system tells."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Return the instruction sets that decide which kernels a runtime takes."""
    flags = set((_cpu_field("flags") or _cpu_field("Features") or "").split())
    return [flag for flag in _CPU_FLAGS if flag in flags]


def _cpu_field(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _n_cores() -> int:
    # a container may leave this process fewer cores than the machine has
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return len(usable) or os.cpu_count() or 1


def _load_per_core(n_cores: int) -> float | Blank:
    if not hasattr(os, "getloadavg"):
        return Blank(f"{platform.system()} keeps no load average")
    return round(os.getloadavg()[0] / n_cores, 2)
