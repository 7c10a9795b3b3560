"""`electra-jax plan`: one config on one or several topologies, compiled, weighed, advised on."""

import dataclasses
import functools
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from tqdm import tqdm

from electra_jax import __version__
from electra_jax.data.source import Prepared
from electra_jax.plan import advise, compare, cost, local, report, topology
from electra_jax.plan.advise import Outcome, Trial
from electra_jax.plan.cost import Machine
from electra_jax.plan.step import Compiled, TooLarge, compile_step, settle
from electra_jax.plan.stretches import Stretch, stretches
from electra_jax.train import sensible
from electra_jax.train.options import RunSpec, run_spec

_NOT_HERE = (
    "no step was run: this machine has less free memory than it takes; a smaller train.batch, or a larger "
    "train.accumulation, takes less"
)
MOST_COMPILES = 4  # of one topology, that of the config included; its phases share them


@dataclass(frozen=True)
class Target:
    """What a topology's name stands for."""

    name: str
    also: str  # its other spelling, in brackets
    devices: Sequence[jax.Device]
    machine: Callable[[], Machine]
    limit: int  # bytes of memory of a device
    local: bool
    chips: int = 0  # 0: not counted in chips
    slices: int = 1


def plan(
    config_name: str,
    config: Mapping[str, Any],
    topologies: Sequence[str],
    *,
    seq_len: int | None = None,
    vocab_size: int = 30522,
    compiles: int = MOST_COMPILES,
    as_json: bool = False,
) -> None:
    """Prints a report a topology, each as soon as it is made, and all in one table; with `as_json` one object a line.

    Raises UserError, before anything is compiled, for a config, data, topology or mesh that is wrong.
    """
    # The compiler of a TPU works without one; an accelerator that is attached has no part in this.
    jax.config.update("jax_platforms", "cpu")
    run = run_spec(config)
    sensible.check_ranges(config)
    parts = stretches(config_name, run, seq_len, vocab_size)
    for name in topologies:
        if name != topology.CPU:
            topology.parse(name)  # all names before the first is looked up
    targets = [aim(name, run) for name in topologies]
    settled = [[_settled(part, target) for part in parts] for target in targets]
    done = []
    for ready, target in zip(settled, targets, strict=True):
        share = max(1, min(compiles, MOST_COMPILES) // len(parts))
        plans: list[dict[str, Any]] = []
        done.append(plans)
        for part in ready:
            plans.append(weigh_on(config_name, part, target, share))
            if not as_json:
                print(report.text(plans[-1]), flush=True)
        if len(parts) > 1:
            whole = report.whole(plans)
            print(json.dumps(whole) if as_json else report.whole_text(whole), flush=True)
        elif as_json:
            print(json.dumps(plans[0]), flush=True)
    if len(done) > 1 and not as_json:
        print(compare.table(done), flush=True)


def _settled(part: Stretch, target: Target) -> Stretch:
    memory = None if target.local else target.limit
    return dataclasses.replace(part, run=settle(part.run, part.data, target.devices, memory))


def aim(name: str, run: RunSpec) -> Target:
    """The devices of a topology's name; UserError for an unknown one, or where a TPU's compiler is missing."""
    if name == topology.CPU:
        return _here(run)
    found = topology.parse(name)
    return Target(
        name=found.name,
        also=f" ({found.accelerator})",
        devices=topology.devices(found),
        machine=lambda: cost.tpu(found),
        limit=int(found.chip.available_gib * 2**30),
        local=False,
        chips=found.chips,
        slices=found.slices,
    )


def _here(run: RunSpec) -> Target:
    devices = jax.devices()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Target(
        name=topology.CPU,
        also="",
        devices=devices,
        machine=lambda: local.machine(run.model.dtype, len(devices)),
        limit=memory // len(devices),
        local=True,
    )


def weigh_on(config_name: str, part: Stretch, target: Target, compiles: int) -> dict[str, Any]:
    """The report of one phase on one topology as plain values; the mesh of its run is settled."""
    run, data = part.run, part.data
    # Memory is no limit worth filling on the machine one sits at.
    total = 1 if target.local else max(1, min(compiles, MOST_COMPILES))
    with tqdm(total=total, desc=f"compile for {target.name}", disable=None, leave=False) as bar:

        def attempt(changed: RunSpec) -> Outcome:
            try:
                return compile_step(changed, data, target.devices)
            except TooLarge as refusal:
                return refusal
            finally:
                bar.update()

        first = Trial("", run.train.batch, attempt(run))
        # What the compiler says is the limit, should it be another than the table's.
        limit = first.outcome.limit if isinstance(first.outcome, TooLarge) else target.limit
        tried = [first]
        if total > 1:
            tried += _try_more(run, data, first, target, limit, total - 1, attempt)
    found = (
        {
            "topology": target.name,
            "also": target.also,
            "device": target.devices[0].device_kind,
            "chips": target.chips,
            "devices": len(target.devices),
            "slices": target.slices,
            "phase": part.number,
            "phases": part.of,
        }
        | report.setting(config_name, run, data, first)
        | {"memory": report.memory(first, limit), "versions": _versions(), "measured": None}
    )
    machine = target.machine()
    if isinstance(first.outcome, Compiled):
        devices = len(target.devices)
        found |= report.figures(run, data, first.outcome, machine, devices, target.chips or devices)
        measured = local.measure(first.outcome, data) if target.local else None
        found["measured"] = measured and dataclasses.asdict(measured)
    found["trials"] = report.trials(tried, limit)
    found["advice"] = [part.flags(line) for line in _advice(run, data, tried, limit, machine)]
    if target.local and found["measured"] is None:
        found["advice"] = [_NOT_HERE]
    return found


def _try_more(
    run: RunSpec,
    data: Prepared,
    first: Trial,
    target: Target,
    limit: int,
    tries: int,
    attempt: Callable[[RunSpec], Outcome],
) -> list[Trial]:
    devices = len(target.devices)
    if isinstance(first.outcome, Compiled):
        rows = devices * run.train.accumulation

        def larger(batch: int) -> Outcome:
            return attempt(
                dataclasses.replace(run, train=dataclasses.replace(run.train, batch=batch))
            )

        return advise.grow(first, limit, rows, tries, larger)[1:]
    split_first = first.outcome.state > limit / 2
    attention = advise.attention_helps(run, data, devices, first.outcome)
    return advise.shrink(run, devices, tries, split_first, attention, attempt, slices=target.slices)


def _advice(
    run: RunSpec, data: Prepared, tried: Sequence[Trial], limit: int, machine: Machine
) -> list[str]:
    """What to do about the first of these trials, in sentences."""
    first, *others = tried
    said = []
    for t in others:
        verdict = "fits" if t.fits(limit) else "does not fit"
        said.append(
            f"{t.change} {verdict}: {t.needed / report.GIB:.2f} GiB a device{_rate(data, t, machine)}"
        )
    fitting = [t for t in others if t.fits(limit)]
    if isinstance(first.outcome, Compiled) and first.fits(limit):
        best = max([first, *fitting], key=lambda t: t.batch)
        if others:
            said.append(f"largest batch found to fit: {best.batch:,}")
    elif fitting:
        said.append(f"to make it fit: {fitting[-1].change}")
    else:
        said.append("does not fit: take a larger slice or a smaller train.batch")
    return said


def _rate(data: Prepared, trial: Trial, machine: Machine) -> str:
    if not isinstance(trial.outcome, Compiled):
        return ""
    step = cost.estimate(trial.outcome.weighed, machine).step
    return f", {trial.batch * data.seq_len / step:,.0f} tokens/s (estimate)"


@functools.cache
def _versions() -> dict[str, str]:
    """Of what decides about the compiled program."""
    found = {"electra_jax": __version__}
    for name in ("jax", "jaxlib", "libtpu", "flax"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
