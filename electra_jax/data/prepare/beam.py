"""`prepare` on an engine, by Apache Beam: the rounds of `engine/` as pipelines, the same rows in the same order.

Each round is a pipeline of its own, of one step without branches: every runner does that rightly, which cannot be
said of more (Dask's loses side outputs and sinks). What tasks make they leave in files, and the round is complete when
all of these are there, whatever the engine says.
"""

import contextlib
import functools
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from electra_jax import remote
from electra_jax.data.prepare import beam_local, beam_options, beam_worker, build
from electra_jax.data.prepare.engine import plan, rounds
from electra_jax.data.prepare.engine.store import Store
from electra_jax.spec import UserError

# How often a round is begun when worker processes are killed.
_TRIES = 3


def engine(options: str = "") -> build.Engine:
    """What `build.prepare` takes as its engine. `options` are Beam's, as typed ("--runner=DaskRunner ...").

    Raises UserError where Beam is not installed, does not know an option or the runner, or cannot reach its engine.
    """
    with beam_worker.quiet():
        beam = _library()
        parsed = beam_options.parsed(options)
        try:
            beam.Pipeline(options=parsed)  # makes the runner and checks its options; runs nothing
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
    if (
        not beam_options.is_dask(found["runner"] or "")
        or found["address"]
        or found["scheduler_file"]
    ):
        yield
        return
    from apache_beam.runners.dask.dask_runner import DaskOptions
    from distributed.deploy.subprocess import SubprocessCluster

    preload = [beam_worker.__name__]
    # Not `LocalCluster`, whose workers import the script that this process runs.
    with SubprocessCluster(
        n_workers=build.cores(),
        threads_per_worker=1,
        dashboard_address=None,  # type: ignore[arg-type]
        scheduler_kwargs={"preload": preload},
        worker_kwargs={"preload": preload, "preload_nanny": preload},
    ) as cluster:
        options.view_as(DaskOptions).address = cluster.scheduler_address
        yield


def _perform(beam: Any, options: Any, label: str, root: str, tasks: Sequence[plan.Task]) -> None:
    """A round as a pipeline. UserError for what a task raised, and for an engine that fails."""
    # What spreads tasks over workers; on Dask, partitions do.
    spread = not beam_options.is_dask(options.get_all_options()["runner"] or "")

    def pipeline(runner: Any = None) -> Any:
        made = beam.Pipeline(runner=runner, options=options)
        created = made | "tasks" >> beam.Create(tasks, reshuffle=spread)
        _ = created | label >> beam.Map(functools.partial(plan.perform, root))
        return made

    for left in reversed(range(_TRIES)):
        try:
            with beam_worker.quiet():
                if beam_local.has_processes(options):
                    beam_local.run(pipeline, options)
                else:
                    _wait(pipeline().run())
            return
        except beam_local.WorkerLost as error:
            what = f"a worker process was killed in the round {label!r} (for lack of memory?)"
            if not left:
                raise UserError(
                    f"{what}, {_TRIES} times in a row; nothing was written. Try fewer --direct_num_workers"
                ) from error
            print(f"note: {what}; what is left is done by new ones", file=sys.stderr)
        except Exception as error:
            raise UserError(_told(error, label)) from error


def _wait(result: Any) -> None:
    try:
        result.wait_until_finish()
    finally:
        if (client := getattr(result, "client", None)) is not None:  # Dask's
            client.close()


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


def _library() -> Any:
    try:
        import apache_beam
    except ImportError as error:
        raise UserError("prepare --runner beam needs: pip install 'electra_jax[beam]'") from error
    return apache_beam
