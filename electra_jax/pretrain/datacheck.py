"""The check of a run's data, and what its outcome means for checkpoints saved before it was done."""

from collections.abc import Callable

import jax

from electra_jax.data.verify import Verification
from electra_jax.host import processes
from electra_jax.host.store import store
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.learn.unconfirmed import Pending
from electra_jax.spec import UserError


class DataCheck:
    """Confirms checkpoints when all processes have found their data whole, and moves them aside when one has not."""

    def __init__(self, verification: Verification, checkpoints: Checkpoints) -> None:
        """`verification` has begun: the files are known, none of them need be hashed yet."""
        self._verification, self._checkpoints = verification, checkpoints
        self._told = self._confirmed = False

    def reject_unknown(self) -> None:
        """Moves aside what an earlier start saved while files were unchecked that are no longer there."""
        self._checkpoints.reject(self._not_ours)

    def look(self) -> None:
        """Acts on what has been found so far, without waiting. Raises UserError naming a damaged shard."""
        self._act(self._verification.check)
        if self._verification.finished and not self._told:
            self._told = True
            if jax.distributed.is_initialized():
                store().put(f"data checked/{store().index}", True)
        if self._told and not self._confirmed and processes.is_first() and self._all_told():
            self._confirmed = True
            self._checkpoints.confirm()

    def pending(self) -> Pending | None:
        """Before a save: the shards unchecked by now, None when all data are known to be whole, in all processes.

        Raises UserError when a file is no longer the one that the run has read from.
        """
        self._act(self._verification.unchanged)
        self.look()
        if self._confirmed or not processes.is_first():
            return None  # only the first process notes what is pending
        # Where another process is not ready, nothing of it is known here: every shard is to be checked again.
        return self._verification.pending() or self._verification.pending(everything=True)

    def finish(self, say: Callable[[str], None]) -> None:
        """Waits until the data of all processes are checked, and confirms what was saved before."""
        v = self._verification
        if not v.finished and v.done < v.total:
            say(f"waiting for the check of the data: {(v.total - v.done) / 1e9:.1f} GB to go")
        self._act(v.settle)
        self.look()
        if processes.is_first() and not self._confirmed:
            for index in range(1, store().count):
                store().get(f"data checked/{index}", writer=index)
            self._confirmed = True
            self._checkpoints.confirm()

    def _all_told(self) -> bool:
        if not jax.distributed.is_initialized():
            return True
        run = store()
        return all(run.peek(f"data checked/{index}") for index in range(1, run.count))

    def _act(self, step: Callable[[], None]) -> None:
        try:
            step()
        except UserError as error:
            reason = str(error)
            if jax.process_count() == 1:
                self._checkpoints.wait()  # a save on its way is one of those to move
            self._checkpoints.reject(lambda pending: reason)
            raise

    def _not_ours(self, pending: Pending) -> str | None:
        name = self._verification.unknown(pending)
        if name is None:
            return None
        return (
            f"it was saved before {name} had been checked, and that file has been replaced since; "
            "what it was can no longer be told"
        )
