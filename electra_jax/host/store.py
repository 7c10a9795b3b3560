"""What the processes of a run tell each other before they compute together: facts, and signs of life.

It goes through the key-value store of jax.distributed, which needs no device. Nobody waits for a fixed time: one
process waits for another as long as that one shows signs of life, and says now and then what it is waiting for.
"""

import functools
import json
import sys
import threading
import time
from typing import Any

import jax

from electra_jax import activity
from electra_jax.spec import UserError

BEAT_S = 5.0  # between two signs of life
SILENT_S = 40.0  # a process that gave none for so long is lost
SAY_S = 30.0  # between two lines that say who is waited for
_POLL_S = 1.0
_PREFIX = "electra_jax"


class LostError(RuntimeError):
    """Another process of the run gave no sign of life."""


class Store:
    """Values by name, in JSON. `client` is that of jax.distributed; `index` is this process, of `count`."""

    def __init__(self, client: Any, index: int, count: int) -> None:
        self.index, self.count = index, count
        self._client = client

    def put(self, name: str, value: Any, overwrite: bool = False) -> None:
        """Writes a value, once unless told to overwrite."""
        self._client.key_value_set(f"{_PREFIX}/{name}", json.dumps(value), overwrite)

    def get(self, name: str, writer: int) -> Any:
        """The value that process `writer` puts under this name, waited for as long as that process is alive.

        Raises LostError when it is not, and UserError, with what it said, when it ended by an error.
        """
        beat, heard = None, time.monotonic()
        said = heard
        while (text := self._wait(name)) is None:
            error = self.peek(f"ended/{writer}")
            if error is not None:
                raise UserError(f"process {writer} of this run ended: {error}")
            sign = self.peek(f"alive/{writer}")
            now = time.monotonic()
            if sign != beat:
                beat, heard = sign, now
            doing = sign["doing"] if sign else "starting"
            if now - heard > SILENT_S:
                raise LostError(
                    f"process {writer} has given no sign of life for {SILENT_S:.0f} s; it was last {doing}"
                )
            if now - said > SAY_S:
                said = now
                print(f"waiting for process {writer}: {doing}", file=sys.stderr, flush=True)
        return json.loads(text)

    def peek(self, name: str) -> Any:
        """The value if it is there, else None."""
        try:
            return json.loads(self._client.key_value_try_get(f"{_PREFIX}/{name}"))
        except (ValueError, RuntimeError) as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def _wait(self, name: str) -> str | None:
        try:
            return self._client.blocking_key_value_get(f"{_PREFIX}/{name}", int(_POLL_S * 1000))
        except (ValueError, RuntimeError) as error:
            if "DEADLINE_EXCEEDED" in str(error):
                return None
            raise

    def live(self) -> None:
        """Gives signs of life until the process ends."""
        threading.Thread(target=self._live, name="signs of life", daemon=True).start()

    def _live(self) -> None:
        beat = 0
        while True:
            beat += 1
            try:
                sign = {"beat": beat, "doing": activity.current()}
                self.put(f"alive/{self.index}", sign, overwrite=True)
            except (ValueError, RuntimeError):
                return  # the store is gone, and the run with it
            time.sleep(BEAT_S)


@functools.cache
def store() -> Store:
    """The store of this process's run; needs jax.distributed."""
    from jax._src import distributed  # jax offers no public way to its store

    state = distributed.global_state
    return Store(state.client, state.process_id, state.num_processes)


def index() -> int:
    """The number of this process, 0 for one alone. Unlike jax.process_index() it does not start the devices."""
    return store().index if jax.distributed.is_initialized() else 0
