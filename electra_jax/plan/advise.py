"""What to change: the largest batch that fits, or what makes a run fit that does not, from a few compilations."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from electra_jax.data.source import Prepared
from electra_jax.model.electra import REMATS
from electra_jax.plan.step import Compiled, TooLarge
from electra_jax.pretrain.options import RunSpec
from electra_jax.spec import UserError

Outcome = Compiled | TooLarge
_ROOM = 0.98  # of the memory: the compiler's own needs grow a little with the program
_CLOSE = 1.05  # batches nearer to each other than this are not told apart


@dataclass(frozen=True)
class Trial:
    """One compilation: what was changed, and what came of it."""

    change: str  # as flags of the command line; empty: the config as it is
    batch: int
    outcome: Outcome

    @property
    def needed(self) -> int:
        """Bytes on a device."""
        if isinstance(self.outcome, TooLarge):
            return self.outcome.needed
        memory = self.outcome.weighed.memory
        assert memory is not None  # what was compiled for a device has its buffers assigned
        return memory.total

    def fits(self, limit: int) -> bool:
        """Whether it was compiled and leaves nothing out."""
        return isinstance(self.outcome, Compiled) and self.needed <= limit


def grow(
    first: Trial, limit: int, rows: int, tries: int, attempt: Callable[[int], Outcome]
) -> list[Trial]:
    """Larger batches after one that fits: at most `tries` compilations, each at the batch a line through the last two
    says is the largest. Batches are multiples of `rows`.
    """
    memory = first.outcome.weighed.memory if isinstance(first.outcome, Compiled) else None
    assert memory is not None
    trials = [first]
    # At first: what does not depend on the batch is the arguments (rows of tokens are small beside the state).
    fixed, slope = float(memory.total - memory.temporaries), memory.temporaries / first.batch
    for _ in range(tries):
        good = max(t.batch for t in trials if t.fits(limit))
        bad = min((t.batch for t in trials if not t.fits(limit)), default=None)
        guess = int((_ROOM * limit - fixed) / slope) if slope > 0 else 0
        if bad is not None and not good < guess < bad:
            guess = (good + bad) // 2
        batch = guess // rows * rows
        if batch < good * _CLOSE or (bad is not None and batch >= bad):
            break
        trial = Trial(f"--config.train.batch={batch}", batch, attempt(batch))
        trials.append(trial)
        low, high = sorted(trials, key=lambda t: t.batch)[-2:]
        slope = (high.needed - low.needed) / (high.batch - low.batch)
        fixed = high.needed - slope * high.batch
    return trials


def shrink(
    run: RunSpec,
    devices: int,
    tries: int,
    split_first: bool,
    attention: bool,
    attempt: Callable[[RunSpec], Outcome],
    slices: int = 1,
) -> list[Trial]:
    """Ways to make a run fit that does not, until one does or `tries` are used up; each adds to those before it.

    They are: recompute attention (if `attention`), recompute layers, split the state over all devices of a slice
    (before that where `split_first`), compute fewer rows at once. What this config or mesh does not allow is passed
    over.
    """
    ways: list[dict[str, int | str]] = []
    for remat in REMATS[REMATS.index(run.model.remat) + 1 :]:
        if remat != "attention" or attention:
            ways.append({"model.remat": remat})
    inside = devices // slices
    if inside > 1 and run.mesh.fsdp != inside:
        ways.insert(0 if split_first else len(ways), {"mesh.data": slices, "mesh.fsdp": inside})
    ways += [{"train.accumulation": run.train.accumulation * times} for times in (2, 4, 8)]
    trials: list[Trial] = []
    flags: dict[str, int | str] = {}
    for way in ways:
        if len(trials) == tries:
            break
        changed = _changed(run, way)
        try:
            outcome = attempt(changed)
        except UserError:
            continue
        run, flags = changed, flags | way
        words = " ".join(f"--config.{name}={value}" for name, value in flags.items())
        trials.append(Trial(words, run.train.batch, outcome))
        if isinstance(outcome, Compiled):
            break
    return trials


def attention_helps(run: RunSpec, data: Prepared, devices: int, refusal: TooLarge) -> bool:
    """Whether recomputing attention alone may make room: the refusal names arrays of all pairs of positions, which a
    kernel has none of, and what is kept of them for the backward pass may be as large as what is missing.

    That is at most, for each head and pair of positions, a float32 before dropout, one after it, and a mask.
    """
    pair = f"{data.seq_len},{data.seq_len}]"
    if not any(pair in line for line in refusal.largest):
        return False
    encoders = [export.spec for export in run.make_objective(data).exports()]
    pairs = run.train.batch // run.train.accumulation * data.seq_len**2 // devices
    heads = sum(x.heads for encoder in encoders for x in encoder.stack)
    return refusal.needed - refusal.limit < 9 * pairs * heads


def _changed(run: RunSpec, values: dict[str, int | str]) -> RunSpec:
    for name, value in values.items():
        section, _, key = name.partition(".")
        part = dataclasses.replace(getattr(run, section), **{key: value})
        run = dataclasses.replace(run, **{section: part})
    return run
