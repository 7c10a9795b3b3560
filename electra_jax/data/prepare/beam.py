"""`prepare` on an engine, by Apache Beam: the rounds of `engine/` as pipelines, the same rows in the same order.

Each round is a pipeline of its own, of one step without branches: every runner does that rightly, which cannot be
said of more (Dask's loses side outputs and sinks). What tasks make they leave in files, and the round is complete when
all of these are there, whatever the engine says.
"""

import contextlib
import functools
import logging
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from electra_jax import remote
from electra_jax.data.prepare import beam_options, beam_worker, build
from electra_jax.data.prepare.engine import plan, rounds
from electra_jax.data.prepare.engine.store import Store
from electra_jax.spec import UserError

# Warnings of Beam's that say nothing to the user, and who gives them.
_NO_NEWS = ("apitools not found", "If direct_num_workers is not equal to 1", "No semi_persistent_directory")
_LOGGERS = (
    "root",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "apache_beam.runners.portability.local_job_service",
)


def engine(options: str = "") -> build.Engine:
    """What `build.prepare` takes as its engine. `options` are Beam's, as typed ("--runner=DaskRunner ...").

    Raises UserError where Beam is not installed, does not know an option or the runner, or cannot reach its engine.
    """
    with _quiet():
        beam = _library()
        parsed = beam_options.parsed(options)
        try:
            _pipeline(beam, parsed)  # makes the runner and checks its options; runs nothing
        except (ValueError, ImportError, AttributeError, TypeError, RuntimeError) as error:
            raise UserError(
                f"--beam-options: Beam refuses the runner or its options: {' '.join(str(error).split())}"
            ) from error
    return functools.partial(_run, beam, parsed)


def _run(beam: Any, options: Any, order: build.Order, folder: Path) -> build.Done:
    """The rounds, which meet beside the output, or on a bucket where that is Beam's --temp_location."""
    given = options.get_all_options().get("temp_location") or ""
    if remote.is_remote(given):
        remote.check_access(given, write=True)
        root = remote.join(given, f"electra_jax-prepare-{secrets.token_hex(6)}")
    else:
        (folder / "parts").mkdir()
        root = str(folder / "parts")
    try:
        with _cluster(options):
            done = rounds.run(functools.partial(_perform, beam, options), order, root, folder)
    finally:
        Store(root).remove()
    shutil.rmtree(folder / "parts", ignore_errors=True)
    return done


@contextlib.contextmanager
def _cluster(options: Any) -> Iterator[None]:
    """Inside, the options name a Dask scheduler: where they name none, one of this machine's processes."""
    found = options.get_all_options()
    if not beam_options.is_dask(found["runner"] or "") or found["address"] or found["scheduler_file"]:
        yield
        return
    from apache_beam.runners.dask.dask_runner import DaskOptions
    from distributed.deploy.subprocess import SubprocessCluster

    # Not `LocalCluster`, whose workers import the script that this process runs.
    with SubprocessCluster(
        n_workers=build.cores(), threads_per_worker=1, dashboard_address=None
    ) as cluster:
        options.view_as(DaskOptions).address = cluster.scheduler_address
        yield


def _perform(
    beam: Any, options: Any, label: str, root: str, tasks: Sequence[plan.Task]
) -> None:
    """A round as a pipeline. UserError for what a task raised, and for an engine that fails."""
    runner = options.view_as(beam.options.pipeline_options.StandardOptions).runner or ""
    # What spreads tasks over workers; on Dask, partitions do.
    spread = not beam_options.is_dask(runner)
    result = None
    try:
        with _quiet():
            pipeline = _pipeline(beam, options)
            _ = (
                pipeline
                | "tasks" >> beam.Create(tasks, reshuffle=spread)
                | label >> beam.Map(functools.partial(plan.perform, root))
            )
            result = pipeline.run()
            result.wait_until_finish()
    except Exception as error:
        raise UserError(_told(error, label)) from error
    finally:
        if (client := getattr(result, "client", None)) is not None:
            client.close()


def _pipeline(beam: Any, options: Any) -> Any:
    """A pipeline on the runner of the options; that on this machine with several workers gets processes of ours."""
    from apache_beam.options import pipeline_options as known

    local = options.view_as(known.DirectOptions)
    runner = options.view_as(known.StandardOptions).runner
    if runner != beam_options.LOCAL or local.direct_num_workers == 1:
        return beam.Pipeline(options=options)
    if local.direct_running_mode != "in_memory":  # the default
        return beam.Pipeline(options=options)
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    command = f"exec {shlex.quote(sys.executable)} -m {beam_worker.__name__}"
    environment = SubprocessSDKEnvironment.from_command_string(command)
    return beam.Pipeline(runner=FnApiRunner(default_environment=environment), options=options)


def _told(error: Exception, label: str) -> str:
    """What a worker's UserError said: engines carry it as text, or add where it was met. Else what the engine said."""
    text = str(error)
    if not isinstance(error, UserError):
        found = re.search(r"electra_jax\.spec\.UserError: (.+)", text)
        if found is None:
            lines = [line for line in text.splitlines() if line.strip()] or [repr(error)]
            return (
                f"the engine failed in the round {label!r}, nothing was written; {type(error).__name__}: "
                f"{lines[-1].strip()[:300]}"
            )
        text = found[1]
    return text.partition(" [while running")[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Beam does not warn of libraries for services that are not used, and of workers that are processes."""

    def wanted(record: logging.LogRecord) -> bool:
        return not any(words in record.getMessage() for words in _NO_NEWS)

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(wanted)


def _library() -> Any:
    try:
        import apache_beam
    except ImportError as error:
        raise UserError("prepare --runner beam needs: pip install 'electra_jax[beam]'") from error
    return apache_beam
