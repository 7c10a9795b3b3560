"""A worker process of an engine on this machine: without a log on the terminal, and gone when its parent is."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

# Warnings of Beam's that say nothing to the user, and who gives them.
_NO_NEWS = (
    "apitools not found",
    "If direct_num_workers is not equal to 1",
    "No semi_persistent_directory",
    "Failed to read inputs in the data plane",  # of a worker that was killed, which is said
)
_LOGGERS = (
    "root",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "apache_beam.runners.portability.local_job_service",
    "apache_beam.runners.worker.data_plane",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, Beam does not warn of libraries for services that are not used, and of workers that are processes."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in _NO_NEWS)


def dask_setup(server: object) -> None:
    """What Dask calls in a scheduler, a nanny and its worker that have this file as their preload."""
    logging.getLogger().addFilter(_is_news)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if type(server).__name__ != "Worker":  # which leaves with its nanny
        threading.Thread(target=_leave, args=(os.getppid(), os.sep), daemon=True).start()


def main() -> None:
    """Run by `python -m` with the environment that Beam gives a worker and a folder; ends when that is removed."""
    os.environ["TOKENIZERS_PARALLELISM"] = (
        "false"  # one process a core is all the parallelism there is
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and stops the workers
    threading.Thread(target=_leave, args=(os.getppid(), sys.argv[1]), daemon=True).start()
    # Errors go to the parent; what threads of Beam's say when it is gone, to nobody.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for as long as this process lives
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def _leave(parent: int, alive: str) -> None:
    """Ends this process when its parent is gone, killed included, or has no more use for it."""
    while os.getppid() == parent and os.path.exists(alive):
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
