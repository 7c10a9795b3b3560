"""From counts to seconds: kernels by their shares, exchanges by what hides them, the floor below the estimate."""

import dataclasses

import pytest

from electra_jax.plan.cost import Machine, estimate
from electra_jax.plan.weighed import Collective, Operation, Weighed

MACHINE = Machine("test", peak=1e12, bandwidth=1e9, egress=1e8, clock=1e9)


def operation(**more):
    fields = {"cycles": None, "flops": 0, "bytes": 0, "kernel": False}
    return Operation("o", "fusion", "o", None, 1, **(fields | more))


def exchange(**more):
    fields = {
        "kind": "all-reduce",
        "bytes": 4_000,
        "group": 4,
        "started": False,
        "hidden_cycles": 0,
    }
    return Collective(op_name="", source=None, runs=1, **(fields | more))


def weighed(operations=(), collectives=()):
    return Weighed(tuple(operations), tuple(collectives), (), None, ())


def test_a_kernel_counts_by_half_the_peak_or_seven_tenths_of_the_bandwidth():
    """Catches hand-written kernels that are free, or that are taken to be perfect."""
    product = operation(flops=10**9, bytes=1, kernel=True)
    copy = operation(flops=1, bytes=7 * 10**6, kernel=True)
    time = estimate(weighed([product, copy, operation(cycles=10**6)]), MACHINE)
    assert time.kernels == pytest.approx(2e-3 + 10e-3)
    assert time.operations == pytest.approx(1e-3)
    assert time.step == pytest.approx(13e-3)
    assert time.step_without_kernels == pytest.approx(1e-3)


def test_only_what_nothing_hides_is_waited_for():
    """Catches overlapped exchanges added to the step, blocking ones taken for overlapped, or half of one lost."""
    seconds = 2 * 3 / 4 * 4_000 / 1e8  # 60 us
    half = exchange(started=True, hidden_cycles=30_000)
    cases = {
        "blocking": exchange(),
        "half": half,
        "hidden": exchange(started=True, hidden_cycles=10**6),
    }
    exposed = {name: estimate(weighed([], [c]), MACHINE).exposed for name, c in cases.items()}
    assert exposed == pytest.approx({"blocking": seconds, "half": seconds / 2, "hidden": 0})
    (all_three,) = estimate(weighed([], cases.values()), MACHINE).exchanges
    assert (all_three.count, all_three.bytes) == (3, 12_000)
    assert all_three.exposed_bytes == pytest.approx(6_000)


def test_the_floor():
    """Catches an estimate below what the machine could do at best."""
    time = estimate(weighed([operation(flops=10**10, bytes=10**6, cycles=1000)]), MACHINE)
    assert (time.compute, time.memory, time.floor) == (1e-2, 1e-3, 1e-2)
    assert time.step == time.floor


def test_without_cycles_every_operation_has_its_own_roofline():
    """Catches a CPU plan of zero seconds, and one device that waits for others."""
    machine = dataclasses.replace(MACHINE, clock=None, egress=0.0)
    operations = [operation(flops=10**9), operation(bytes=10**6)]
    time = estimate(weighed(operations, [exchange()]), machine)
    assert time.operations == pytest.approx(2e-3)
    assert time.exposed == 0 and time.step == pytest.approx(2e-3)
