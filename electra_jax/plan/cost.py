"""From what a program does to how long it takes: a floor by roofline and an estimate by the compiler's cycles."""

from dataclasses import dataclass

from electra_jax.plan.topology import Topology
from electra_jax.plan.weighed import Collective, Operation, Weighed

# A hand-written kernel has no estimate of the compiler's: this share of the peak, or of the bandwidth, counts.
KERNEL_COMPUTE = 0.5
KERNEL_BANDWIDTH = 0.7


@dataclass(frozen=True)
class Machine:
    """The rates of one device."""

    kind: str
    peak: float  # FLOP/s
    bandwidth: float  # of main memory, bytes/s
    egress: float  # to other devices, bytes/s; 0: there are none
    clock: float | None  # of the compiler's cycles, Hz; None: it estimates none


@dataclass(frozen=True)
class Exchange:
    """The collectives of one kind: seconds are estimates."""

    kind: str
    count: int  # runs in a step
    bytes: int
    seconds: float
    exposed_seconds: float  # not hidden behind work scheduled between start and done
    exposed_bytes: float


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step, all estimates."""

    compute: float  # executed FLOPs at peak
    memory: float  # bytes moved at full bandwidth
    interconnect: float  # bytes sent at full bandwidth
    operations: (
        float  # the compiler's cycles, or (where it makes none) each operation's own roofline
    )
    kernels: float  # hand-written ones
    exchanges: tuple[Exchange, ...]

    @property
    def floor(self) -> float:
        """No schedule of this program is faster on this machine."""
        return max(self.compute, self.memory, self.interconnect)

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
    """The rates of a chip of a slice."""
    chip = topology.chip
    return Machine(chip.kind, chip.peak, chip.bandwidth, topology.egress, chip.clock)


def estimate(weighed: Weighed, machine: Machine) -> Estimate:
    """How long one call takes on this machine."""
    sent = sum(c.sent for c in weighed.collectives)
    return Estimate(
        compute=weighed.flops / machine.peak,
        memory=weighed.bytes / machine.bandwidth,
        interconnect=sent / machine.egress if machine.egress else 0.0,
        operations=sum(seconds(o, machine) for o in weighed.operations if not o.kernel),
        kernels=sum(seconds(o, machine) for o in weighed.kernels),
        exchanges=_exchanges(weighed.collectives, machine),
    )


def seconds(operation: Operation, machine: Machine) -> float:
    """How long an operation takes, all its runs: a kernel by its shares of the rates, else the compiler's cycles (what
    it made no estimate for is asynchronous or small, and counts as nothing), else full rates.
    """
    if operation.kernel:
        compute, bandwidth = KERNEL_COMPUTE, KERNEL_BANDWIDTH
    elif machine.clock:
        return (operation.cycles or 0) / machine.clock
    else:
        compute = bandwidth = 1.0
    return max(
        operation.flops / (compute * machine.peak),
        operation.bytes / (bandwidth * machine.bandwidth),
    )


def _exchanges(collectives: tuple[Collective, ...], machine: Machine) -> tuple[Exchange, ...]:
    found: dict[str, Exchange] = {}
    for c in collectives:
        seconds = c.sent / machine.egress if machine.egress else 0.0
        hidden = c.hidden_cycles / machine.clock if c.started and machine.clock else 0.0
        exposed = max(0.0, seconds - hidden)
        before = found.get(c.kind, Exchange(c.kind, 0, 0, 0.0, 0.0, 0.0))
        found[c.kind] = Exchange(
            kind=c.kind,
            count=before.count + c.runs,
            bytes=before.bytes + c.bytes,
            seconds=before.seconds + seconds,
            exposed_seconds=before.exposed_seconds + exposed,
            exposed_bytes=before.exposed_bytes + (c.bytes * exposed / seconds if seconds else 0.0),
        )
    return tuple(sorted(found.values(), key=lambda e: -e.bytes))
