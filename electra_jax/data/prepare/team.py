"""Objects in processes of their own, whose methods this process calls, one call at a time in each."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from electra_jax.spec import UserError


class Team:
    """`size` members, each what `make(*arguments)` gives, in a process of its own.

    Leaving the block ends the processes: when they are idle after success, at once after an error.
    """

    def __init__(self, size: int, make: Callable[..., Any], arguments: Sequence[Any] = ()) -> None:
        # Spawned, not forked: this process has threads (jax, tokenizers), which a fork would break.
        context = multiprocessing.get_context("spawn")
        self.size = size
        self._links: list[Connection] = []
        self._processes: list[Any] = []
        self._busy: set[int] = set()
        try:
            for _ in range(size):
                here, there = context.Pipe()
                self._links.append(here)
                process = context.Process(target=_serve, args=(there, make, arguments), daemon=True)
                with there, _deaf_to_ctrl_c():
                    process.start()
                self._processes.append(process)
        except BaseException:
            self._end(at_once=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._end(at_once=error is not None)

    def call(self, member: int, method: str, *arguments: Any) -> None:
        """Has an idle member begin with a call of one of its methods."""
        try:
            self._links[member].send((method, arguments))
        except OSError:
            raise _death() from None
        self._busy.add(member)

    def replies(self) -> list[tuple[int, Any]]:
        """(member, result) of all calls that have ended; waits for one. An error of a call is raised as itself.

        Raises UserError where a process has died.
        """
        ended = multiprocessing.connection.wait([self._links[member] for member in self._busy])
        return [
            (member, self._reply(member))
            for member in sorted(self._busy)
            if self._links[member] in ended
        ]

    def all(self, method: str, *arguments: Any) -> list[Any]:
        """The result of one method of every member, all of them idle."""
        for member in range(self.size):
            self.call(member, method, *arguments)
        results: dict[int, Any] = {}
        while self._busy:
            results.update(self.replies())
        return [results[member] for member in range(self.size)]

    def _reply(self, member: int) -> Any:
        try:
            good, result = self._links[member].recv()
        except (EOFError, OSError):
            raise _death() from None
        self._busy.discard(member)
        if not good:
            raise result
        return result

    def _end(self, at_once: bool) -> None:
        for link in self._links:
            link.close()  # what an idle member takes for the end
        for process in self._processes:
            if at_once:
                process.terminate()
        for process in self._processes:
            process.join()


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` gives in a new process, whose memory is free afterwards."""
    with Team(1, _Function, (function,)) as team:
        team.call(0, "__call__", *arguments)
        return team.replies()[0][1]


class _Function:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def _serve(link: Connection, make: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """The life of a member's process."""
    # One process a core is all the parallelism there is; read by the library when it first works.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends the members
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    member = None
    with contextlib.suppress(EOFError, OSError):  # the parent has closed the link
        while True:
            method, told = link.recv()
            try:
                # Made here, so that an error in it reaches the parent as itself.
                member = member or make(*arguments)
                reply = True, getattr(member, method)(*told)
            except Exception as error:  # noqa: BLE001 (raised again in the parent)
                reply = False, _portable(error)
            link.send(reply)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent."""
    told = "".join(traceback.format_exception(error))
    if not isinstance(error, UserError):
        error.add_note(f"in a worker process:\n{told}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (whatever its class does)
        return RuntimeError(told)
    return error


def _death() -> UserError:
    return UserError(
        "a worker process ended before its work was done: killed for lack of memory (try fewer "
        "--workers), or prepare() was called in a script outside `if __name__ == '__main__':`"
    )


def _leave_with_parent() -> None:
    """Ends this process when its parent is gone, killed included: a long call would not notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C waits, and a process that is started never hears it: this one tells it what to do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
