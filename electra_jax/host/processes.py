"""One run in several processes: joining them, agreeing before the first step, leaving when one is gone.

What is agreed goes through the store of store.py, which needs no device: a mistake is found before anything is
compiled.
"""

import contextlib
import importlib.util
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from electra_jax import activity
from electra_jax.host import preempt
from electra_jax.host.store import LostError, index
from electra_jax.host.store import store as run_store
from electra_jax.spec import UserError, flat

HEARTBEAT_S = 60  # a process that is silent for so long is lost, and ends all others
_LINGER_S = 2.0  # the first process holds what the others read: it leaves last
_GOOGLE = "0x1ae0"  # vendor of a TPU on the PCI bus
# What collectives say when their other end is gone (Gloo on CPUs, NCCL on GPUs, the coordinator).
_LOST = ("gloo", "nccl", "connection", "unavailable", "coordination", "heartbeat", "socket")


@dataclass(frozen=True)
class Plan:
    """How this process finds the others; None is for jax.distributed to find out."""

    coordinator: str | None = None  # host:port of process 0
    count: int | None = None
    index: int | None = None
    perhaps: bool = False  # alone, unless jax.distributed finds others


def plan(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Plan | None:
    """The plan by flags, else by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, else as found.

    Slurm and Open MPI say in the environment how many processes they started; on a TPU host jax asks the platform,
    which may know other hosts, and surely does where the environment names several slices. None: this process is
    alone. Raises UserError for half a plan.
    """
    told = {
        "--coordinator": coordinator or environment.get("JAX_COORDINATOR_ADDRESS"),
        "--processes": count if count is not None else _number("JAX_NUM_PROCESSES", environment),
        "--process": index if index is not None else _number("JAX_PROCESS_ID", environment),
    }
    missing = [flag for flag, value in told.items() if value is None]
    if len(missing) == len(told):
        if _started_together(environment):
            return Plan()
        if not _on_tpu(environment):
            return None
        return Plan(perhaps=(_number("MEGASCALE_NUM_SLICES", environment) or 1) == 1)
    if missing:
        raise UserError(
            f"a run in several processes needs --coordinator, --processes and --process; missing: {', '.join(missing)}"
        )
    address, number, at = told.values()
    host, _, port = str(address).rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator {address} is not HOST:PORT of process 0, with a port of 1 to 65535"
        )
    if not 0 <= int(str(at)) < int(str(number)):
        raise UserError(
            f"--process {at} of --processes {number}: processes are numbered 0 to {int(str(number)) - 1}"
        )
    return Plan(str(address), int(str(number)), int(str(at)))


def _number(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise UserError(f"environment variable {name}={text!r} is not a whole number")
    return int(text)


def _started_together(environment: Mapping[str, str]) -> bool:
    """Whether Slurm's srun or Open MPI started several of this process; jax.distributed then finds the others."""
    slurm = "SLURM_STEP_NODELIST" in environment and _number("SLURM_NTASKS", environment)
    return (slurm or _number("OMPI_COMM_WORLD_SIZE", environment) or 1) > 1


def _on_tpu(environment: Mapping[str, str]) -> bool:
    """Whether this host has TPUs. Whether it is one of several only its platform knows, and jax asks it."""
    return (
        environment.get("JAX_PLATFORMS", "tpu").startswith("tpu")
        and "TPU_SKIP_MDS_QUERY" not in environment
        and importlib.util.find_spec("libtpu") is not None
        and _has_tpu()
    )


def _has_tpu(root: Path = Path("/")) -> bool:
    """Whether this machine has TPU chips: /dev/accel* up to v4; since then groups of VFIO, which others use, too."""
    if any((root / "dev").glob("accel[0-9]*")):
        return True
    groups = root / "sys" / "kernel" / "iommu_groups"
    return any(
        vendor.read_text().strip() == _GOOGLE
        for group in (root / "dev" / "vfio").glob("[0-9]*")
        for vendor in groups.glob(f"{group.name}/devices/*/vendor")
    )


@contextlib.contextmanager
def joined(how: Plan | None, patience_s: int) -> Iterator[None]:
    """Inside, this process is one of its run's. A failure ends the process here: nobody waits for the others.

    Exit status then: 2 after a UserError, 75 when another process is lost, 1 for a bug.
    """
    if how is None:
        yield
        return
    _join(how, patience_s)
    if not jax.distributed.is_initialized():
        yield
        return
    run_store().live()
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - every way out must pass by the shutdown barrier
        _leave(error)
    jax.distributed.shutdown()


def _join(how: Plan, patience_s: int) -> None:
    def give_up() -> None:
        number = f"of {how.count} processes" if how.count else "of this run's processes"
        print(
            f"error: not all {number} have come to {how.coordinator or 'the coordinator'} within "
            f"{patience_s} s; is every one started, with the same --processes?",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    # jax's own time limit aborts the process with a stack trace.
    timer = threading.Timer(patience_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            how.coordinator,
            how.count,
            how.index,
            initialization_timeout=patience_s + 30,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (ValueError, RuntimeError) as error:
        # Of all that may stand in the way, only this says that there are others.
        if not how.perhaps or "recognize coordinator" in str(error):
            raise UserError(f"cannot join the run's processes: {error}") from error
    finally:
        timer.cancel()


def _leave(error: BaseException) -> None:
    """Says why, to those who wait for this process, too, and ends it at once."""
    code = 1
    with contextlib.suppress(ValueError, RuntimeError):  # the store may be what is gone
        run_store().put(f"ended/{index()}", str(error) or type(error).__name__)
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
        code = 2
    elif isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        code = 130
    elif isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
    elif isinstance(error, LostError) or (
        isinstance(error, (ValueError, RuntimeError))
        and any(word in str(error).lower() for word in _LOST)
    ):
        print(
            f"error: another process of this run is gone ({str(error).splitlines()[0][:200]}); "
            "start all of them again: the run goes on from its newest checkpoint",
            file=sys.stderr,
        )
        code = preempt.RESUME
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 2 and is_first():
        time.sleep(_LINGER_S)
    os._exit(code)


def is_first() -> bool:
    """Whether this process writes what a run writes once: metrics, record, lock."""
    return index() == 0


def agree(what: str, facts: Mapping[str, Any]) -> None:
    """Raises UserError, in every process, naming the first process whose facts differ from process 0's, and in what.

    `facts` is any JSON; `what` names it, once in the life of a run. A process that is still busy with what comes
    before is waited for.
    """
    if not jax.distributed.is_initialized():
        return
    store = run_store()
    mine = {"processes": store.count, **facts}
    store.put(f"{what}/{store.index}", mine)
    first = store.get(f"{what}/0", writer=0)
    for number in range(1, first["processes"]):
        # Its own first: a process that expects more than there are must not wait for them.
        for other in dict.fromkeys((store.index, number)):
            theirs = store.get(f"{what}/{other}", writer=other)
            ours, found = flat(first), flat(theirs)
            wrong = [
                f"{name}: {ours.get(name)!r} in process 0, {found.get(name)!r} in process {other}"
                for name in sorted(ours.keys() | found.keys())
                if ours.get(name) != found.get(name)
            ]
            if wrong:
                raise UserError(
                    f"the processes of this run were started differently; {'; '.join(wrong)}. "
                    "Start all of them with the same command, config and data"
                )


def by_first(what: str, action: Callable[[], Any]) -> Any:
    """What `action` returns (any JSON) in process 0; the others wait for it. Its UserError is raised in all."""
    if not jax.distributed.is_initialized():
        return action()
    store = run_store()
    if store.index == 0:
        try:
            with activity.doing(what):
                result = action()
        except UserError as error:
            store.put(what, {"error": str(error)})
            raise
        store.put(what, {"result": result})
        return result
    told = store.get(what, writer=0)
    if "error" in told:
        raise UserError(told["error"])
    return told["result"]


def same(flag: bool) -> bool:
    """Process 0's answer, in every process, in the middle of a run."""
    if jax.process_count() == 1:
        return flag
    with jax.transfer_guard("allow"):
        return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))
