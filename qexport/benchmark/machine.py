"""The machine a benchmark ran on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

CPU_INFO, CACHES = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0/cache")

NOTABLE = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_vpopcntdq",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
"""Flags of the processor that decide which kernels run."""


def describe_machine() -> dict[str, Any]:
    """processor, cores, flags (those of NOTABLE it has), caches (level and kind -> size), memory in bytes, python,
    system, load (programs that ran at once, averaged over the last minute)."""
    info = _cpu_info()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "flags": [flag for flag in NOTABLE if flag in flags],
        "caches": _caches(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
    }


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def cores_for(threads: int) -> list[int] | None:
    """The last cores, for every engine: the first serves interrupts. None where a process cannot choose."""
    return sorted(os.sched_getaffinity(0))[-threads:] if sys.platform == "linux" else None


def _cpu_info() -> dict[str, str]:
    """The first processor's entries."""
    if not CPU_INFO.exists():
        return {}
    lines = CPU_INFO.read_text().partition("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _caches() -> dict[str, str]:
    found = {}
    for index in sorted(CACHES.glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level}{'' if kind == 'Unified' else kind[0].lower()}"] = size
    return found
