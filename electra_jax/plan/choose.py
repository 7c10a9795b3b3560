"""Which of several topologies to rent for so much money, or for a run that must end in time."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from electra_jax.plan import gpu, report, topology
from electra_jax.quantities import seconds_of
from electra_jax.spec import UserError

# Looked at where none is named: what one can rent by itself, from a few chips to a few hosts.
USUAL_TPUS = ("v5e-4", "v5e-8", "v5e-16", "v6e-4", "v6e-8", "v6e-16", "v5p-8")
USUAL_GPUS = ("h100-1", "h100-8")


@dataclass(frozen=True)
class Limits:
    """What a run may cost and take; None: anything."""

    budget: float | None = None  # in the currency of the prices
    deadline: float | None = None  # hours
    spot: bool = False  # money is that of spot machines

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self.budget is not None or self.deadline is not None


def limits(budget: str | None, deadline: str | None, spot: bool) -> Limits:
    """The limits of the command line; UserError for what is no amount or no stretch of time."""
    money = None
    if budget is not None:
        try:
            money = float(budget)
        except ValueError:
            money = 0.0
        if not 0 < money < float("inf"):
            raise UserError(
                f"--budget {budget!r} is no amount of money; expected a number above 0 such as 500, "
                "in the currency of the prices"
            )
    hours = None if deadline is None else seconds_of(deadline, "--deadline") / 3600
    return Limits(money, hours, spot)


def usual() -> tuple[str, ...]:
    """The topologies to look at where none is named: those whose compiler is installed."""
    found: list[str] = []
    refusals = []
    for require, names in (
        (topology.require_libtpu, USUAL_TPUS),
        (gpu.require_compiler, USUAL_GPUS),
    ):
        try:
            require()
        except UserError as error:
            refusals.append(str(error))
        else:
            found += names
    if not found:
        raise UserError(refusals[0])
    return tuple(found)


def money_of(whole: Mapping[str, Any], spot: bool) -> float | None:
    """What the run costs there by that kind of price; None where there is no such price."""
    kind = "spot" if spot else "on_demand"
    return whole["money"] and whole["money"][kind]


def choose(
    wholes: Sequence[Mapping[str, Any]], limits: Limits
) -> tuple[Mapping[str, Any] | None, float]:
    """(topology, share of the run): where the whole run is within the limits, 1; else where most of it is.

    With a budget alone the fastest, with a deadline the cheapest (of unknown price last). None where a share cannot
    be told: nothing fits its memory or, with a budget, has a price.
    """
    able = [w for w in wholes if w["fits"] and w["hours"]]
    if limits.budget is not None:
        able = [w for w in able if money_of(w, limits.spot) is not None]
    if not able:
        return None, 0.0

    def cost(whole: Mapping[str, Any]) -> float:
        money = money_of(whole, limits.spot)
        return float("inf") if money is None else money

    def order(whole: Mapping[str, Any]) -> tuple[float, float]:
        both = cost(whole), whole["hours"]
        return both if limits.deadline is not None else both[::-1]

    def share(whole: Mapping[str, Any]) -> float:
        shares = [1.0]
        if limits.budget is not None:
            shares.append(limits.budget / cost(whole))
        if limits.deadline is not None:
            shares.append(limits.deadline / whole["hours"])
        return min(shares)

    best = min(able, key=lambda whole: (-share(whole), *order(whole)))
    return best, share(best)


def text(
    wholes: Sequence[Mapping[str, Any]], limits: Limits, config: str, overrides: Sequence[str]
) -> str:
    """The choice for people, and the command that starts it."""
    best, share = choose(wholes, limits)
    kind = "on spot" if limits.spot else "on demand"
    asked = []
    if limits.budget is not None:
        asked.append(f"for {limits.budget:,g} {_currency(wholes)} {kind}".replace("  ", " "))
    if limits.deadline is not None:
        asked.append(f"within {report.hours(limits.deadline)}")
    wanted = " and ".join(asked)
    if best is None:
        why = "fits a topology" if limits.budget is None else "fits a topology that has a price"
        return (
            f"nothing {wanted}: no step {why} {kind if limits.budget is not None else ''}".rstrip()
        )
    steps = int(best["steps"] * share)
    money = money_of(best, limits.spot)
    costs = (
        ""
        if money is None
        else f", {report.amount(money * share, best['money']['currency'])} {kind}"
    )
    takes = f"{report.hours(best['hours'] * share)}{costs} (estimates, without compiling, saving and waiting)"
    if share < 1 and (steps < 1 or len(best["phases"]) > 1):
        return f"{wanted}: nowhere the whole run; most of it, {share:.0%}, on {best['topology']}"
    if share == 1:
        head = f"{wanted}: {best['topology']}, all {steps:,} steps in {takes}"
        change = []
    else:
        head = (
            f"{wanted}: nowhere all {best['steps']:,} steps; most of them, {steps:,}, on {best['topology']}, "
            f"in {takes}; the learning rate then decays over these"
        )
        change = [f"train.steps={steps}"]
    return f"{head}\n  {_command(config, [*overrides, *change])}"


def _currency(wholes: Sequence[Mapping[str, Any]]) -> str:
    return next((w["money"]["currency"] for w in wholes if w["money"]), "")


def _command(config: str, overrides: Sequence[str]) -> str:
    flags = [f"--config.{override}" for override in overrides]
    if not any(o.startswith("data.path=") for o in overrides):
        flags.append("--config.data.path=DATA")
    return f"electra-jax pretrain --config {shlex.quote(config)} --workdir RUN " + " ".join(
        shlex.quote(flag) for flag in flags
    )
