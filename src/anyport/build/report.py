"""What one machine measured: it lies beside a sealed bundle, never inside."""

from __future__ import annotations

import platform
import resource
import sys
from typing import Any

from anyport.bench.machine import cpu_flags, cpu_name
from anyport.build.provenance import build_packages


def machine_report() -> dict[str, Any]:
    """Return the processor, the packages, and the peak memory of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": cpu_name(),
        "isa": cpu_flags(),
        "packages": build_packages(),
        "peak_memory_bytes": peak,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
    }
