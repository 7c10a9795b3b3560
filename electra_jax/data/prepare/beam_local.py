"""Beam's own runner with processes of this machine, any of which may be killed: Beam would wait for it for ever."""

import contextlib
import shlex
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from electra_jax.data.prepare import beam_options, beam_worker

# Threads of Beam's that wait for a worker process, and how long they may take to see that it has ended.
_WAITING, _LEAVING_S = "run_worker", 10


class WorkerLost(Exception):
    """A worker process ended before its work was done."""


def has_processes(options: Any) -> bool:
    """Whether Beam's options ask for several processes of this machine."""
    found = options.get_all_options()
    return (
        found["runner"] == beam_options.LOCAL
        and found["direct_num_workers"] != 1
        and found["direct_running_mode"] == "in_memory"  # the default, not threads
    )


def run(build: Callable[[Any], Any], options: Any) -> None:
    """Runs the pipeline that `build` makes with a runner.

    Raises what the runner raises, and WorkerLost; the processes end within seconds, in any case.
    """
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    ended, failed = threading.Event(), []

    def work(runner: Any) -> None:
        try:
            build(runner).run().wait_until_finish()
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            failed.append(error)
        ended.set()

    with _lost(ended) as lost, tempfile.TemporaryDirectory(prefix="electra_jax-workers-") as alive:
        command = f"exec {shlex.quote(sys.executable)} -m {beam_worker.__name__} {alive}"
        environment = SubprocessSDKEnvironment.from_command_string(command)
        runner = FnApiRunner(default_environment=environment)
        threading.Thread(target=work, args=(runner,), daemon=True).start()
        ended.wait()
        if lost:
            raise WorkerLost
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _lost(ended: threading.Event) -> Iterator[list[str]]:
    """Yields what will hold the errors of threads whose worker process was killed; sets `ended` then."""
    lost: list[str] = []
    before = threading.excepthook

    def hook(told: Any) -> None:
        if told.thread is not None and told.thread.name == _WAITING:
            lost.append(str(told.exc_value))
            ended.set()
        elif not lost:
            before(told)

    threading.excepthook = hook
    try:
        yield lost
    finally:
        lost.append("")  # what threads say from here on is of no interest
        for thread in threading.enumerate():
            if thread.name == _WAITING:
                thread.join(_LEAVING_S)
        threading.excepthook = before
