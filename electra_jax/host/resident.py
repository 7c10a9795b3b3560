"""How much memory this process holds, by Linux's count."""

import contextlib
import re
from pathlib import Path


def now() -> int | None:
    """Bytes; None where the system does not tell."""
    return _field("VmRSS")


def peak() -> int | None:
    """The most bytes since the process or `forget_peak` began; None where the system does not tell."""
    return _field("VmHWM")


def forget_peak() -> None:
    """Begins the peak anew; where that is not allowed, it stays that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.M)
    return int(found[1]) * 1024 if found else None
