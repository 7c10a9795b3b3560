"""Who does what next: files read and pieces of text worked on by a team, the results in the order of the text.

The text passes from member to member in files; this process deals numbers. A run of files is read by one
member at a time, since only who has read a stream up to a place knows what stands there; several runs
are read at once where one does not keep the others busy.
"""

import dataclasses
import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from electra_jax.data.prepare.team import Team

# The most pieces of one read.
_PIECES = 4


class Call(NamedTuple):
    """A method of a member with its arguments; `then` is told the result."""

    method: str
    arguments: tuple[Any, ...]
    then: Callable[[Any], None]


class Read(NamedTuple):
    """What a member's `read(run, files, most, ...)` gives: how many pieces it made, the stored bytes read, whether
    that was the last of the run."""

    pieces: int
    stored: int
    ended: bool


class Done(NamedTuple):
    """What a member's `make(run, piece)` gives: a result, and the bytes that are held until it is taken."""

    result: Any
    held: int


@dataclasses.dataclass
class _Run:
    """How far a run of files is read."""

    files: range
    pieces: int = 0
    ended: bool = False


class Dealer:
    """Deals the work on runs of files to a team whose members have `read` and `make`.

    Results that come before their turn may hold `most_ahead` bytes, and nothing new is begun while `room`
    says no; then only the calls of `own` (by member) are made. `told` has what `read` needs to know of a
    run besides, and `consumed` is told the stored bytes read. Calls of `anyone` are made by whoever is idle.
    """

    def __init__(
        self,
        team: Team,
        runs: Sequence[range],
        most_ahead: int,
        consumed: Callable[[int], object],
        room: Callable[[], bool] = lambda: True,
        opened: Callable[[range], None] = lambda files: None,
        told: Callable[[range], tuple[Any, ...]] = lambda files: (),
    ) -> None:
        self._team, self._most_ahead, self._consumed = team, most_ahead, consumed
        self._room, self._opened, self._told = room, opened, told
        self.own: list[deque[Call]] = [deque() for _ in range(team.size)]
        self.anyone: deque[Call] = deque()
        self._runs = [_Run(files) for files in runs]
        self._begun = 0  # runs of which reading has begun
        self._reading: dict[int, int] = {}  # member -> the run it has open
        self._running: dict[int, Call] = {}
        self._ready: list[tuple[int, int]] = []  # a heap of (run, piece) to be worked on
        self._done: dict[tuple[int, int], Done] = {}  # before their turn
        self._ahead = 0  # bytes those hold
        self._next = (0, 0)  # the piece whose result is due

    def results(self) -> Iterator[tuple[int, int, Any]]:
        """(run, piece, result) of all pieces, in their order. Raises what a member raises."""
        while self._next[0] < len(self._runs):
            run, piece = self._next
            if (done := self._done.pop(self._next, None)) is not None:
                self._ahead -= done.held
                self._next = run, piece + 1
                yield run, piece, done.result
            elif self._runs[run].ended and piece == self._runs[run].pieces:
                self._next = run + 1, 0
            else:
                self._step()

    def finish(self) -> None:
        """Has all calls of `own` and `anyone` made."""
        while self._running or self.anyone or any(self.own):
            self._step()

    def reader(self, member: int) -> bool:
        """Whether this member has a run open."""
        return member in self._reading

    def _step(self) -> None:
        for member in range(self._team.size):
            if member not in self._running and (call := self._choice(member)) is not None:
                self._running[member] = call
                self._team.call(member, call.method, *call.arguments)
        assert self._running, "nobody has anything to do"
        for member, result in self._team.replies():
            self._running.pop(member).then(result)

    def _choice(self, member: int) -> Call | None:
        """The most urgent call for an idle member."""
        if self.own[member]:
            return self.own[member].popleft()
        if not self._room():
            return self._of_anyone()
        held = self._reading.get(member)
        first = next(
            (
                n
                for n, run in enumerate(self._runs[self._next[0] :], self._next[0])
                if not run.ended
            ),
            None,
        )
        mine = first is not None and (held == first or (held is None and first == self._begun))
        wanted = 2 * self._team.size - len(self._ready)
        if mine and (wanted > 0 or self._is_unread()):
            return self._read(member, min(max(1, wanted), _PIECES))
        if self.anyone:
            return self._of_anyone()
        free = self._ahead < self._most_ahead
        if self._ready and (free or self._ready[0] == self._next):
            place = heapq.heappop(self._ready)
            return Call("make", place, lambda done: self._made(place, done))
        if free and (held is not None or self._begun < len(self._runs)):
            return self._read(member, 1)
        return None

    def _of_anyone(self) -> Call | None:
        return self.anyone.popleft() if self.anyone else None

    def _is_unread(self) -> bool:
        """Whether the piece that is due has not even been read."""
        run, piece = self._next
        return piece == self._runs[run].pieces

    def _read(self, member: int, most: int) -> Call:
        """The next pieces of the run that a member has open, or of the next one."""
        if member not in self._reading:
            self._reading[member] = self._begun
            self._begun += 1
            self._opened(self._runs[self._begun - 1].files)
        number = self._reading[member]
        run = self._runs[number]
        told = () if run.pieces else self._told(run.files)

        def then(read: Read) -> None:
            for piece in range(run.pieces, run.pieces + read.pieces):
                heapq.heappush(self._ready, (number, piece))
            run.pieces, run.ended = run.pieces + read.pieces, read.ended
            if read.ended:
                del self._reading[member]
            self._consumed(read.stored)

        return Call("read", (number, run.files, most, *told), then)

    def _made(self, place: tuple[int, int], done: Done) -> None:
        self._done[place] = done
        self._ahead += done.held
