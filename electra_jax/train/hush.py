"""Keeps the checkpoint library's own log off the terminal; its failures arrive as exceptions."""

import functools
import logging


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


@functools.cache
def hush() -> None:
    """Once per process: drops Orbax's records from the log it shares with others."""
    logging.getLogger("absl").addFilter(_not_orbax)
