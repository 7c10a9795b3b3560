"""Beam's options as the user typed them: every one known, its runner there, and its engine within reach."""

import argparse
import logging
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from electra_jax.spec import UserError, nearest

# In this process, and of all of Beam's runners the one that needs no other program.
LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
_DIRECT = ("", "direct", "directrunner", "bundlebaseddirectrunner", "switchingdirectrunner")

# Runners whose job server has options that Beam for Python cannot know.
_JOB_SERVERS = ("flink", "spark", "portable")

# How long an engine may take to answer.
LIMIT_S = 10


def parsed(options: str) -> Any:  # of PipelineOptions
    """Beam's options, all of them known and of their type; UserError for others and for an engine that is not there."""
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--beam-options={options!r} cannot be split into words: {error}") from None
    known = _known(words)
    if (known.direct_num_workers or 0) < 0:
        raise UserError(
            f"--beam-options: --direct_num_workers={known.direct_num_workers} must be at least 1, or 0 for all cores"
        )
    runner = (known.runner or "").lower()
    if runner in _DIRECT:
        words.append(f"--runner={LOCAL}")  # the last one counts
        if known.direct_running_mode == "multi_processing":
            # With processes of ours (beam_local.py).
            words.append("--direct_running_mode=in_memory")
    elif is_dask(runner):
        words.append(f"--runner={DASK}")
        _check_dask(known)
        if known.npartitions is None and known.partition_size is None:
            words.append("--dask_partition_size=1")  # a task is minutes of work
    elif any(name in runner for name in _JOB_SERVERS):
        _check_job_server(known, runner)
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions(words)


def is_dask(runner: str) -> bool:
    """Whether this is Beam's runner on Dask."""
    return runner.lower().rpartition(".")[2] in ("dask", "daskrunner")


class _Parser(argparse.ArgumentParser):
    """Parses what Beam's classes of options declare, and refuses in our way."""

    def add_value_provider_argument(self, *names: str, **settings: Any) -> None:
        """What those classes call for options that a template leaves open."""
        self.add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"--beam-options: {message}")


def _known(words: Sequence[str]) -> argparse.Namespace:
    """The values of Beam's options."""
    from apache_beam.options.pipeline_options import PipelineOptions

    if any("dask" in word.lower() for word in words):
        _import_dask()  # which declares its options
    parser = _Parser(prog="--beam-options", allow_abbrev=False, add_help=False)
    for declared in {str(cls): cls for cls in PipelineOptions.__subclasses__()}.values():
        if "_add_argparse_args" in declared.__dict__:
            declared._add_argparse_args(parser)  # type: ignore[arg-type]
    known, unknown = parser.parse_known_args(list(words))
    runner = known.runner or ""
    if unknown and "-h" not in unknown and any(name in runner.lower() for name in _JOB_SERVERS):
        print(
            f"note: Beam for Python does not know {' '.join(unknown)}; the job server of {runner} may",
            file=sys.stderr,
        )
    elif unknown:
        names = [name for action in parser._actions for name in action.option_strings]
        name = unknown[0].partition("=")[0]
        guess = nearest(name, names)
        hint = f" Did you mean {guess}?" if guess else ""
        raise UserError(f"--beam-options: {name} is no option of Beam.{hint}")
    return known


def _import_dask() -> Any:
    try:
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # also of what it starts
        import distributed
        from apache_beam.runners.dask import dask_runner  # noqa: F401  declares its options
    except ImportError as error:
        raise UserError(
            "--beam-options: Beam's DaskRunner needs Dask: pip install 'electra_jax[dask]'"
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors are raised, too
    return distributed


def _check_dask(known: argparse.Namespace) -> None:
    """UserError unless a scheduler that is named answers, and has workers."""
    distributed = _import_dask()
    address, file = known.address, known.scheduler_file
    if not address and not file:
        return  # a cluster of this machine's processes, made when it is needed
    where = address or f"of {file}"
    if not address and not os.path.exists(file):  # which Dask would wait for
        raise UserError(f"--beam-options: --dask_scheduler_file={file} does not exist")
    try:
        with distributed.Client(address, scheduler_file=file, timeout=LIMIT_S) as client:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--beam-options: the Dask scheduler {where} does not answer within {LIMIT_S} s "
            f"({_first_line(error)}); is it running, and is this its address?"
        ) from error
    if not workers:
        raise UserError(
            f"--beam-options: the Dask scheduler {where} has no workers; start some with: dask worker"
        )


def _check_job_server(known: argparse.Namespace, runner: str) -> None:
    """UserError where the address of a job server or cluster does not answer, or Java, which starts one, is missing."""
    endpoint = getattr(known, "job_endpoint", None)
    cluster = getattr(known, "flink_master" if "flink" in runner else "spark_master_url", None)
    for address in (endpoint, cluster if "portable" not in runner else None):
        place = (address or "").partition("://")[2] or address or ""
        host, _, port = place.rpartition(":")
        if host and port.isdecimal():
            try:
                socket.create_connection((host.strip("[]"), int(port)), LIMIT_S).close()
            except OSError as error:
                raise UserError(
                    f"--beam-options: {address} does not answer within {LIMIT_S} s ({_first_line(error)}); is the "
                    "engine running, and is this its address?"
                ) from error
    if not endpoint and "portable" not in runner and shutil.which("java") is None:
        raise UserError(
            f"--beam-options: {known.runner} starts a job server, which needs Java; install it, or name a server that "
            "runs with --job_endpoint=HOST:PORT"
        )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
