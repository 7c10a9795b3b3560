"""Keeps the checkpoint library's own log off the terminal; its failures arrive as exceptions."""

import functools
import logging
import sys
import warnings

from electra_jax import files


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _no_second_disk_error(record: logging.LogRecord) -> bool:
    """False for the failures of other files of a save, of which the first was raised already."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or files.os_error(error) is None


@functools.cache
def hush() -> None:
    """Once per process: drops Orbax's records from the log it shares with others, and what follows a failed save."""
    logging.getLogger("absl").addFilter(_not_orbax)
    logging.getLogger("asyncio").addFilter(_no_second_disk_error)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    shown = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        # Where native code calls back into a save that has failed since.
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook
