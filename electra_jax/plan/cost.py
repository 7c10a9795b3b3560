"""From what a program does to how long it takes: a floor by roofline and an estimate by the compiler's cycles."""

from dataclasses import dataclass

from electra_jax.plan.topology import Topology
from electra_jax.plan.weighed import Collective, Operation, Weighed


@dataclass(frozen=True)
class Rates:
    """Which shares of peak and bandwidth an operation reaches."""

    compute: float = 1.0
    bandwidth: float = 1.0
    hidden: bool = True  # the shorter of the two goes on behind the longer


@dataclass(frozen=True)
class Machine:
    """The rates of one device."""

    kind: str
    peak: float  # FLOP/s
    bandwidth: float  # of main memory, bytes/s
    egress: float  # to other devices of its slice, bytes/s; 0: there are none
    clock: float | None  # of the compiler's cycles, Hz; None: it estimates none
    network: float = 0.0  # to other slices, bytes/s; 0: there are none
    cache: int = 0  # bytes that an operation moves without touching main memory
    cache_bandwidth: float = 0.0  # bytes/s; of no account without a cache
    operations: Rates = Rates()  # of operations for which the compiler estimates no cycles
    kernels: Rates = Rates(0.5, 0.7)  # of hand-written kernels, which it never does

    def moving(self, operation: Operation) -> tuple[float, float]:
        """Seconds in all runs of an operation that its bytes take in main memory and in the cache, at full rates."""
        inside = min(operation.bytes, self.cache * operation.runs)
        near = inside / self.cache_bandwidth if inside else 0.0
        return (operation.bytes - inside) / self.bandwidth, near


@dataclass(frozen=True)
class Exchange:
    """The collectives of one kind, inside a slice or between slices: seconds are estimates."""

    kind: str  # all-reduce, or all-reduce between slices
    count: int  # runs in a step
    bytes: int
    seconds: float
    exposed_seconds: float  # not hidden behind work scheduled between start and done
    exposed_bytes: float
    between_slices: bool


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step, all estimates."""

    compute: float  # executed FLOPs at peak
    memory: float  # bytes moved in main memory, those beyond a cache, at full bandwidth
    interconnect: float  # bytes sent inside the slice at full bandwidth
    network: float  # bytes sent to other slices at full bandwidth
    operations: (
        float  # the compiler's cycles, or (where it makes none) each operation's own roofline
    )
    kernels: float  # hand-written ones
    exchanges: tuple[Exchange, ...]

    @property
    def floor(self) -> float:
        """No schedule of this program is faster on this machine."""
        return max(self.compute, self.memory, self.interconnect, self.network)

    @property
    def exposed(self) -> float:
        """Waiting for other devices."""
        return sum(e.exposed_seconds for e in self.exchanges)

    @property
    def step(self) -> float:
        """The estimate; never below the floor."""
        return max(self.floor, self.operations + self.kernels + self.exposed)

    @property
    def step_without_kernels(self) -> float:
        """The same as if hand-written kernels took no time: what does not rest on their guess."""
        return self.operations + self.exposed


def tpu(topology: Topology) -> Machine:
    """The rates of a device of these slices."""
    chip = topology.chip
    return Machine(
        chip.kind, chip.peak, chip.bandwidth, topology.egress, chip.clock, topology.network
    )


def estimate(weighed: Weighed, machine: Machine) -> Estimate:
    """How long one call takes on this machine."""
    return Estimate(
        compute=weighed.flops / machine.peak,
        memory=_memory(weighed, machine),
        interconnect=sum(_sending(c, machine) for c in weighed.collectives if not c.between_slices),
        network=sum(_sending(c, machine) for c in weighed.collectives if c.between_slices),
        operations=sum(seconds(o, machine) for o in weighed.operations if not o.kernel),
        kernels=sum(seconds(o, machine) for o in weighed.kernels),
        exchanges=_exchanges(weighed.collectives, machine),
    )


def _memory(weighed: Weighed, machine: Machine) -> float:
    """Seconds that main memory needs at full bandwidth: for what no cache can hold of each operation, and at least for
    arguments and results, of which a cache can keep its own size from one call to the next.
    """
    beyond = sum(machine.moving(o)[0] for o in weighed.operations)
    if not machine.cache or weighed.memory is None:
        return beyond
    state = weighed.memory.arguments + weighed.memory.outputs - machine.cache
    return max(beyond, state / machine.bandwidth)


def seconds(operation: Operation, machine: Machine) -> float:
    """How long an operation takes, all its runs: a kernel by its shares of the rates, else the compiler's cycles (what
    it made no estimate for is asynchronous or small, and counts as nothing), else the machine's shares of the rates.
    """
    if machine.clock and not operation.kernel:
        return (operation.cycles or 0) / machine.clock
    rates = machine.kernels if operation.kernel else machine.operations
    main, near = machine.moving(operation)
    compute = operation.flops / (rates.compute * machine.peak)
    moving = main / rates.bandwidth + near
    return max(compute, moving) if rates.hidden else compute + moving


def _sending(collective: Collective, machine: Machine) -> float:
    """Seconds that an exchange takes alone."""
    rate = machine.network if collective.between_slices else machine.egress
    return collective.sent / rate if rate else 0.0


def _exchanges(collectives: tuple[Collective, ...], machine: Machine) -> tuple[Exchange, ...]:
    groups: dict[str, list[Collective]] = {}
    for c in collectives:
        groups.setdefault(c.name, []).append(c)
    found = [_exchange(name, group, machine) for name, group in groups.items()]
    return tuple(sorted(found, key=lambda e: -e.bytes))


def _exchange(name: str, group: list[Collective], machine: Machine) -> Exchange:
    """What the collectives of one name come to.

    Those between slices begin within a short time and share one network: work hides no more of them together than
    there is from the first one's start to the last one's end.
    """
    exposed = exposed_bytes = 0.0
    for c in group:
        alone = _sending(c, machine)
        waits = max(0.0, alone - (_hidden(c.hidden_cycles, machine) if c.started else 0.0))
        exposed += waits
        exposed_bytes += c.bytes * waits / alone if alone else 0.0
    seconds = sum(_sending(c, machine) for c in group)
    size = sum(c.bytes for c in group)
    if group[0].between_slices:
        first, last = min(c.begins for c in group), max(c.begins + c.hidden_cycles for c in group)
        together = seconds - _hidden(last - first, machine)
        if together > exposed:
            exposed, exposed_bytes = together, size * together / seconds
    runs, between = sum(c.runs for c in group), group[0].between_slices
    return Exchange(name, runs, size, seconds, exposed, exposed_bytes, between)


def _hidden(cycles: int, machine: Machine) -> float:
    return cycles / machine.clock if machine.clock else 0.0
