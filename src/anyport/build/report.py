"""What one machine measured: it lies beside a sealed bundle, never inside."""

from __future__ import annotations

import platform
import resource
import sys
from pathlib import Path
from typing import Any, Final

from anyport.build.provenance import package_versions

_CPU_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def machine_report() -> dict[str, Any]:
    """Return the processor, the packages, and the peak memory of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": cpu_name(),
        "isa": cpu_flags(),
        "packages": package_versions(),
        "peak_memory_bytes": peak,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
    }


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
