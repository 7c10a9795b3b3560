"""`electra-jax plan`: one config on one or several topologies, compiled, weighed, advised on."""

import dataclasses
import functools
import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from tqdm import tqdm

from electra_jax import __version__
from electra_jax.data.source import Prepared
from electra_jax.plan import advise, choose, compare, cost, local, picture, prices, report
from electra_jax.plan.advise import Outcome, Trial
from electra_jax.plan.choose import Limits
from electra_jax.plan.cost import Machine
from electra_jax.plan.prices import Prices
from electra_jax.plan.step import Compiled, TooLarge, compile_step, settle
from electra_jax.plan.stretches import Stretch, stretches
from electra_jax.plan.target import Target, aim, check_name
from electra_jax.pretrain import sensible
from electra_jax.pretrain.options import RunSpec, run_spec
from electra_jax.spec import UserError

_NOT_HERE = (
    "no step was run: this machine has less free memory than it takes; a smaller train.batch, or a larger "
    "train.accumulation, takes less"
)
MOST_COMPILES = 4  # of one topology, that of the config included; its phases share them


@dataclass(frozen=True, kw_only=True)
class Money:
    """What the plans are to say beside time: prices, a picture, limits to choose by."""

    prices: Prices
    plot: str | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)


def money(
    price: str | None, plot: str | None, budget: str | None, deadline: str | None, spot: bool
) -> Money:
    """The flags of the command line; UserError for what is wrong with one of them."""
    limits = choose.limits(budget, deadline, spot)
    if plot is not None:
        picture.check(plot)
    return Money(prices=prices.read(price or prices.SHIPPED), plot=plot, limits=limits)


def plan(
    config_name: str,
    config: Mapping[str, Any],
    topologies: Sequence[str],
    *,
    seq_len: int | None = None,
    vocab_size: int = 30522,
    compiles: int | None = None,
    as_json: bool = False,
    money: Money | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Prints a report a topology, each as soon as it is made, and all in one table; with `as_json` one object a line.

    Where `money` holds limits, no topologies means the usual ones, and the last lines say which one to take.
    `overrides` are what was changed in the config, for the command that starts the run. Raises UserError, before
    anything is compiled, for a config, data, topology or mesh that is wrong.
    """
    # The compiler of a TPU works without one; an accelerator that is attached has no part in this.
    jax.config.update("jax_platforms", "cpu")
    run = run_spec(config)
    sensible.check_ranges(config)
    money = money or Money(prices=prices.read())
    parts = stretches(config_name, run, seq_len, vocab_size)
    if compiles is None:
        compiles = 1 if money.limits.any else MOST_COMPILES  # a choice needs no other batch
    ready = _ready(topologies, parts, run, money.limits)
    share = max(1, min(compiles, MOST_COMPILES) // len(parts))
    done = []
    for aimed, settled in ready:
        plans: list[dict[str, Any]] = []
        done.append(plans)
        for part in settled:
            plans.append(weigh_on(config_name, part, aimed, share, money.prices))
            if not as_json:
                print(report.text(plans[-1]), flush=True)
        if len(parts) > 1:
            whole = report.whole(plans)
            print(json.dumps(whole) if as_json else report.whole_text(whole), flush=True)
        elif as_json:
            print(json.dumps(plans[0]), flush=True)
    if len(done) > 1 and not as_json:
        print(compare.table(done), flush=True)
    _conclude([report.whole(plans) for plans in done], money, config_name, overrides, as_json)


def _ready(
    topologies: Sequence[str], parts: Sequence[Stretch], run: RunSpec, limits: Limits
) -> list[tuple[Target, list[Stretch]]]:
    """The targets with the phases as they would run there; of the usual ones those that the batch divides over."""
    if not topologies and not limits.any:
        raise UserError(
            "which machine? Give --topology NAME, or --budget or --deadline to choose one"
        )
    for name in topologies:
        check_name(name)  # all names before the first is looked up
    if topologies:
        targets = [aim(name, run) for name in topologies]
        return [(aimed, [_settled(part, aimed) for part in parts]) for aimed in targets]
    found = []
    for name in choose.usual():
        aimed = aim(name, run)
        try:
            found.append((aimed, [_settled(part, aimed) for part in parts]))
        except UserError as error:
            print(f"left out {name}: {error}", file=sys.stderr, flush=True)
    if not found:
        raise UserError(
            "none of the usual machines suits the config's batch and mesh; give --topology"
        )
    return found


def _conclude(
    wholes: Sequence[Mapping[str, Any]],
    money: Money,
    config: str,
    overrides: Sequence[str],
    as_json: bool,
) -> None:
    """What follows from all plans: the choice, and the picture."""
    limits = money.limits
    if limits.any:
        said = choose.text(wholes, limits, config, overrides)
        print(said, file=sys.stderr if as_json else sys.stdout, flush=True)
    if money.plot is not None:
        drawn = picture.draw(wholes, money.plot, budget=limits.budget, deadline=limits.deadline)
        said = "time against money" if drawn else "nothing drawn: nothing fits and has a price"
        print(f"{money.plot}: {said}", file=sys.stderr, flush=True)


def _settled(part: Stretch, target: Target) -> Stretch:
    memory = None if target.local else target.limit
    return dataclasses.replace(part, run=settle(part.run, part.data, target.devices, memory))


def weigh_on(
    config_name: str, part: Stretch, target: Target, compiles: int, prices: Prices
) -> dict[str, Any]:
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
        price = prices.chips.get(target.chip)
        chips = target.chips or devices
        found |= report.figures(
            run, data, first.outcome, machine, devices, chips, price, prices.currency
        )
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
