"""What a process takes, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to clear_refs, it lowers the peak to what is resident now (proc(5))."""


class MemoryMeter:
    """Largest growth of the resident memory (VmHWM - VmRSS) since the meter was made."""

    def __init__(self) -> None:
        try:
            CLEAR_REFS.write_text(RESET_PEAK)
            self.before = _resident("VmRSS")
        except OSError:
            self.before = None

    def most(self) -> int | None:
        """Bytes; None on systems that do not count it."""
        if self.before is None:
            return None
        peak = _resident("VmHWM")
        return None if peak is None else max(peak - self.before, 0)


def _resident(field: str) -> int | None:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return None
