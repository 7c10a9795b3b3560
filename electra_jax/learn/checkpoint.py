"""Checkpoints of the train state: saved behind the run's back, read back whole or not at all.

    <workdir>/checkpoints/<step>/state   the arrays (Orbax, OCDBT)
    <workdir>/checkpoints/<step>/meta    JSON: every path with shape, dtype and checksum; the caller's meta

A folder takes its name <step> when everything is in it; on a bucket, where nothing is renamed, it
holds `commit_success.txt` when it is whole. The rest of the program knows Orbax only
through this file (its v0 API: v1 has no counterpart of the preemption hook yet).
"""

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from electra_jax import answers, files
from electra_jax.answers import BucketError
from electra_jax.host.hush import hush
from electra_jax.learn import arrays, content, restored, stored, unconfirmed
from electra_jax.learn.average import AVERAGE
from electra_jax.spec import UserError


class Checkpoints:
    """The checkpoints of a workdir; a context manager that ends with every save on disk.

    Keeps the newest `keep_last` and every step that `keep_every` divides (0: none of these).
    Only the process that holds the workdir's lock may save.
    """

    def __init__(self, workdir: str | Path, keep_last: int = 3, keep_every: int = 0) -> None:
        hush()
        self.folder = stored.place(Path(workdir))
        self._keep: list[Any] = [
            checkpoint_managers.LatestN(max(1, keep_last)),
            unconfirmed.NewestConfirmed(lambda: unconfirmed.noted(self.folder)),
            _Linked(self.folder),
        ]
        if keep_every > 0:
            self._keep.append(checkpoint_managers.EveryNSteps(keep_every))
        self._damaged: set[int] = set()
        stored.refuse_foreign(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and jax.process_count() > 1:
            return  # a save that waits for a lost process would never end
        if "_manager" not in self.__dict__:
            return
        for end in (self.wait, self._close):
            try:
                end()
            except UserError as found:
                error = error or found
        if isinstance(error, UserError):
            if not stored.on_bucket(self.folder):
                stored.remove_partial(
                    self.folder
                )  # of the save that failed, when nothing writes any more
            raise error  # the first one is the one to tell

    def _close(self) -> None:
        if "_manager" in self.__dict__:
            with _disk_faults(self.folder):
                self._manager.close()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Made at the first save: reading a workdir changes nothing in it."""
        if jax.process_index() == 0:
            with files.disk_errors(self.folder):
                self._tidy()
        _barrier("checkpoints tidied")
        options = ocp.CheckpointManagerOptions(
            create=True, preservation_policy=checkpoint_managers.AnyPreservationPolicy(self._keep)
        )
        with files.disk_errors(self.folder):
            return ocp.CheckpointManager(self.folder, item_names=("state", "meta"), options=options)

    def _tidy(self) -> None:
        """Removes what a killed save left, and moves damaged checkpoints out of the way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stored.remove_partial(self.folder)
        for step in stored.uncommitted(self.folder):
            stored.remove(self.folder / str(step))
        for step in self._damaged:
            aside = self.folder / f"{step}{stored.DAMAGED}"
            stored.remove(aside)
            (self.folder / str(step)).rename(aside)

    def steps(self) -> list[int]:
        """The steps with a finished checkpoint, ascending, whether readable or not."""
        return stored.steps(self.folder)

    def save(
        self,
        step: int,
        state: Any,
        meta: dict[str, Any],
        pending: unconfirmed.Pending | None = None,
    ) -> None:
        """Copies the state off the devices and returns; the files are written behind.

        `state` is a tree of numeric arrays and may be donated afterwards; `meta` is any JSON. `pending` names the
        shards that had not been checked when they were read: the checkpoint is then unconfirmed.
        Raises UserError when this save, or the one before it, met a full or forbidden disk; BucketError when a bucket
        refuses it, and the next save tries again. That a bucket refused the one before is said in a line.
        """
        try:
            self._save(step, state, meta, pending)
        except BucketError:
            self._forget()
            raise

    def _save(
        self, step: int, state: Any, meta: dict[str, Any], pending: unconfirmed.Pending | None
    ) -> None:
        # The loop forbids implicit transfers; this is the place where they are meant.
        with jax.transfer_guard("allow"), _disk_faults(self.folder):
            self._clear_failure()
            manager = self._manager
            if step in stored.steps(self.folder):
                raise UserError(
                    f"{self.folder / str(step)} exists already; remove it to save again"
                )
            table = arrays.describe(state)
            for path, value in arrays.checksums(state).items():
                table[path]["checksum"] = value
            record = {"format": content.FORMAT, "step": step, "arrays": table, "meta": meta}
            if pending and jax.process_index() == 0:
                unconfirmed.note(self.folder, step, pending)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record)
            )
            manager.save(step, args=items, force=True)

    def _clear_failure(self) -> None:
        """Says that the save before this one failed on a bucket; the manager, who counts on it, is made anew."""
        if "_manager" not in self.__dict__ or not stored.on_bucket(self.folder):
            return
        try:
            self.wait()
        except BucketError as error:
            if jax.process_count() > 1:
                raise
            _warn(f"the newest checkpoint was not written: {error}")

    def confirm(self) -> None:
        """All data that the checkpoints came of have proved to be whole."""
        unconfirmed.confirm(self.folder)

    def reject(self, why: Callable[[unconfirmed.Pending], str | None]) -> None:
        """Moves the unconfirmed checkpoints aside for which `why`, given their pending shards, has a reason."""
        for step, pending in unconfirmed.noted(self.folder).items():
            if (reason := why(pending)) and unconfirmed.reject(self.folder, step, reason):
                _warn(f"checkpoint {self.folder / str(step)} is moved aside: {reason}")

    def newest_meta(self) -> tuple[int, dict[str, Any]] | None:
        """Step and meta of the newest checkpoint whose record can be read, whatever its arrays are; None without."""
        for step in reversed(self.steps()):
            with contextlib.suppress(*content.READ_FAULTS, content.DamagedError):
                return step, content.record(self.folder / str(step))["meta"]
        return None

    def wait(self) -> None:
        """Returns when the last save is on disk; raises UserError if it could not be."""
        if "_manager" in self.__dict__:
            try:
                with _disk_faults(self.folder):
                    self._manager.wait_until_finished()
                    self._manager.check_for_errors()
            except BucketError:
                self._forget()
                raise

    def _forget(self) -> None:
        """Lets go of a manager that counts on a checkpoint that is not there."""
        manager = self.__dict__.pop("_manager", None)
        if manager is not None:
            with contextlib.suppress(Exception):
                manager.close()

    def restore(
        self, abstract_state: Any, step: int | None = None
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, meta) of the newest good checkpoint, or of `step`; None where there is none.

        `abstract_state` is a tree of ShapeDtypeStructs with shardings: the state comes back on
        these, whatever mesh it was saved from, and may be donated. A damaged checkpoint is passed
        over with a warning. UserError: a foreign folder, or other paths, shapes or dtypes.
        """
        expected = arrays.describe(abstract_state)
        for number, record, _ in self._good(step, together=True):
            folder = self.folder / str(number)
            wrong = arrays.mismatches(expected, record["arrays"], "the checkpoint")
            if wrong:
                listing = "".join(f"\n  {line}" for line in wrong)
                raise UserError(
                    f"checkpoint {folder} does not fit this model and optimizer:{listing}\n"
                    "use the config it was trained with, or another --workdir"
                )
            with (
                jax.transfer_guard("allow"),
                ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader,
            ):
                return number, restored.restore(reader, folder, abstract_state), record["meta"]
        return None

    def _good(
        self, step: int | None, together: bool, prefix: str | tuple[str, ...] | None = None
    ) -> Iterator[tuple[int, dict[str, Any], dict[str, np.ndarray]]]:
        """Step, record and arrays (as `stored.read`) of the checkpoints whose files can be read, newest first.

        `together`: every process of the run is here; one reads it all, and all act on its verdict. Otherwise the run
        may go on elsewhere, and its checkpoints vanish.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise UserError(f"{self.folder} has no checkpoint of step {step}; {self._known()}")
        left = list(steps) if step is None else [step]
        while left:
            number, fault, found = left.pop(), None, None
            if jax.process_index() == 0 or not together:
                try:
                    found = content.read(self.folder / str(number), prefix)
                except (*content.READ_FAULTS, content.DamagedError) as error:
                    if stored.on_bucket(self.folder):
                        answers.refuse_unreachable(self.folder / str(number), error)
                    fault = error
            if _anywhere(fault is not None) if together else fault is not None:
                if not together and self._rotated(number, step, steps):
                    steps = self.steps()
                    left = list(steps)
                else:
                    self._pass_over(number, fault, step)
                continue
            yield number, *(found or (content.record(self.folder / str(number)), {}))

    def _rotated(self, number: int, asked: int | None, steps: list[int]) -> bool:
        """Whether a checkpoint could not be read because its run goes on, and keeps newer ones in its place."""
        now = self.steps()
        if number in now and (asked is not None or now[-1] <= steps[-1]):
            return False
        where = f"checkpoint {self.folder / str(number)} was removed while it was read"
        if asked is not None or not now:
            raise UserError(f"{where}; {self._known()}")
        _warn(f"{where}, its run goes on; taking the newest, of step {now[-1]}")
        return True

    def _known(self) -> str:
        return f"it has: {', '.join(map(str, self.steps())) or 'none'}"

    def _pass_over(self, number: int, why: Exception | None, asked: int | None) -> None:
        reason = _first_line(why)
        if _errno(why) in (errno.EACCES, errno.EPERM):
            raise UserError(f"cannot read {self.folder / str(number)}: {reason}") from why
        if asked is not None:
            raise UserError(
                f"checkpoint {self.folder / str(number)} is damaged ({reason}); choose another step"
            ) from why
        self._damaged.add(number)
        if jax.process_index() == 0:
            _warn(f"checkpoint {self.folder / str(number)} is damaged ({reason}); passing over it")

    def read(self, step: int | None = None) -> "Saved":
        """What was learned; UserError where there is none."""
        wanted = ("params/", "carried/")
        for number, record, found in self._good(step, together=False, prefix=wanted):
            if number in unconfirmed.noted(self.folder):
                _warn(
                    f"checkpoint {self.folder / str(number)} was saved before all data had been checked; "
                    "the next start of pretrain confirms it or moves it aside"
                )
            params, carried = (
                {path.removeprefix(top): x for path, x in found.items() if path.startswith(top)}
                for top in wanted
            )
            return Saved(number, params, carried, record["meta"])
        raise UserError(f"{self.folder} has no checkpoint that can be read; train first")


class Saved(NamedTuple):
    """What a checkpoint has besides the optimizer's state: numpy arrays by path."""

    step: int
    params: dict[str, np.ndarray]
    carried: dict[str, np.ndarray]
    meta: dict[str, Any]

    def average(self, where: Any) -> dict[str, np.ndarray]:
        """The average of the weights; UserError, naming the run's workdir, where it has none."""
        found = {
            path.removeprefix(f"{AVERAGE}/"): x
            for path, x in self.carried.items()
            if path.startswith(f"{AVERAGE}/")
        }
        if not found:
            raise UserError(
                f"{where} was trained without an average of the weights; leave --average out, or train with "
                "--config.train.average=0.999 from the first step"
            )
        return found


@dataclass
class _Linked(checkpoint_managers.PreservationPolicy):
    """Keeps what is a link to elsewhere: it was put there by hand, and what it leads to is not ours to remove."""

    folder: Any

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """One answer a checkpoint, of Orbax's PolicyCheckpointInfo."""
        if stored.on_bucket(self.folder):
            return [False] * len(checkpoints)
        return [(self.folder / str(c.step)).is_symlink() for c in checkpoints]


def read_params(
    workdir: str | Path, step: int | None = None
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """(step, nested dict of numpy parameters, meta) of the newest good checkpoint, or of `step`."""
    found = read(workdir, step)
    return found.step, arrays.nest(found.params), found.meta


def read(workdir: str | Path, step: int | None = None) -> Saved:
    """What was learned, of the newest good checkpoint, or of `step`."""
    return Checkpoints(workdir).read(step)


@contextlib.contextmanager
def _disk_faults(folder: Any) -> Iterator[None]:
    """UserError for a disk or bucket that is full or forbidden; what the failed save left on a disk is removed."""
    if stored.on_bucket(folder):
        with answers.explained(folder, "write"):
            yield
        return
    with files.disk_errors(folder):
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if folder.is_dir():
                stored.remove_partial(folder)
            number = _errno(error)
            if number is None:
                raise
            raise OSError(number, os.strerror(number)) from error


def _errno(error: BaseException | None) -> int | None:
    """The operating system's number behind an error, or behind what led to it."""
    while error is not None:
        if (number := files.os_error(error)) is not None:
            return number
        error = error.__cause__ or error.__context__
    return None


def _anywhere(flag: bool) -> bool:
    """Whether any process says so; every process gets the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _first_line(error: Exception | None) -> str:
    text = str(error) if error is not None else "the first process could not read it"
    return text.splitlines()[0][:200] if text else type(error).__name__
