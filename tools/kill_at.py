#!/usr/bin/env python3
"""Runs electra-jax, and kills it (SIGKILL) before the n-th file operation of its first save of a checkpoint.

    python tools/kill_at.py N LOG FOLDER pretrain --workdir FOLDER ...     # N = 0: no kill

Counted are Python's own operations that change something in FOLDER: files opened to be written, folders made, names
given and removed. What native code writes (the arrays) lies between two of them. Each is noted in LOG before it is
done. With fewer than N the process ends, with 0, where the second save would begin. `tools/faults.py` calls this.
"""

import os
import signal
import sys
from typing import Any

CHANGES = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Count:
    """An audit hook: counts, notes, kills."""

    def __init__(self, kill_at: int, log: int, folder: str) -> None:
        self._kill_at, self._log, self._folder = kill_at, log, os.path.abspath(folder)
        self.begun, self._made = False, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python before it does what `event` names."""
        if not self.begun or event not in CHANGES:
            return
        if event == "open" and not arguments[2] & WRITES:
            return
        name = self._name(arguments)
        if name is None:
            return
        self._made += 1
        os.write(self._log, f"{event.removeprefix('os.')} {name}\n".encode())
        if self._made == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _name(self, arguments: tuple[Any, ...]) -> str | None:
        """What the operation changes, relative to the folder; None for what lies elsewhere."""
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return None  # a descriptor, opened before
        path = os.fsdecode(arguments[0])
        if not os.path.isabs(path):  # of shutil.rmtree, relative to a folder that it has opened
            return path if any(isinstance(x, int) and x > 2 for x in arguments[1:]) else None
        inside = os.path.relpath(path, self._folder)
        return None if inside.startswith("..") else inside


def main() -> int:
    """The command."""
    kill_at, log, folder, *command = sys.argv[1:]
    from electra_jax import cli
    from electra_jax.learn.checkpoint import Checkpoints

    count = Count(int(kill_at), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), folder)
    sys.addaudithook(count)
    save = Checkpoints.save

    def begin(self: Checkpoints, *arguments: Any, **named: Any) -> None:
        if count.begun:
            self.wait()  # with what belongs to the first one
            os._exit(0)
        count.begun = True
        save(self, *arguments, **named)

    Checkpoints.save = begin  # type: ignore[method-assign]
    return cli.main(command)


if __name__ == "__main__":
    sys.exit(main())
