"""What the options of a run can mean: a range for every number, and which options exclude each other.

What a run was begun with, before there was a range for it, stays: it goes on unchanged.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.objective import registry
from electra_jax.quantities import Range
from electra_jax.spec import UserError, flat

_MOST = 2**31 - 1  # steps and rows are counted in 32 bits


_SHARE = Range(0, 1, below=True)
_WIDTH, _COUNT, _STEPS = Range(1, 2**16), Range(1, _MOST), Range(0, _MOST)

# Every number of a config but the objective's, which each objective knows itself. Upper ends are far beyond what
# anybody trains: they catch a digit too many.
RANGES = {
    "model.layers": Range(1, 1_000),
    "model.width": _WIDTH,
    "model.heads": _WIDTH,
    "model.ffn": Range(1, 2**20),
    "model.embedding": _WIDTH,
    "model.positions": Range(1, 2**20),
    "model.types": Range(1, 1_000),
    "model.generator_size": Range(0, 10, above=True),
    "model.generator_layers": Range(0, 10, above=True),
    "model.dropout": _SHARE,
    "model.attention_dropout": _SHARE,
    "model.local_attention": Range(0, 2**20),
    "model.global_attn_every_n_layers": Range(0, 1_000),
    "model.global_rope_theta": Range(0, 1e12),
    "model.local_rope_theta": Range(0, 1e12),
    "model.embedding_dropout": _SHARE,
    "model.mlp_dropout": _SHARE,
    "model.init_std": Range(0, 1, above=True),
    "model.vocab_rows": Range(0, 2**31 - 1),
    "optim.peak_lr": Range(0, 1, above=True),
    "optim.warmup": _STEPS,
    "optim.lr_power": Range(0, 100),
    "optim.beta1": _SHARE,
    "optim.beta2": _SHARE,
    "optim.eps": Range(0, 1, above=True),
    "optim.weight_decay": Range(0, 1),
    "optim.clip_norm": Range(0, 1e9, above=True),
    "optim.decay_steps": _STEPS,
    "optim.momentum": _SHARE,
    "optim.adam_ratio": Range(0, 1_000),
    "optim.consistent_rms": Range(0, 10),
    "train.steps": _COUNT,
    "train.batch": _COUNT,
    "train.accumulation": _COUNT,
    "train.seed": Range(-(2**63), 2**63 - 1),
    "train.log_every": _COUNT,
    "train.eval_every": _COUNT,
    "train.eval_batches": Range(0, _MOST),
    "train.checkpoint_every": _COUNT,
    "train.keep_last": _COUNT,
    "train.keep_every": Range(0, _MOST),
    "train.max_skipped": Range(0, _MOST),
    "train.stop_at": _STEPS,
    "train.average": _SHARE,
    "train.phases.steps": _COUNT,
    "train.phases.batch": Range(0, _MOST),
    "train.phases.accumulation": Range(0, _MOST),
    "train.phases.peak_lr": Range(0, 1),
    "train.phases.warmup": _STEPS,
    "train.phases.decay_steps": _STEPS,
    "data.window": Range(0, _MOST),
    "mesh.data": Range(-1, _MOST),
    "mesh.fsdp": Range(-1, _MOST),
}


def check(config: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
    """Raises UserError, naming every one, for options that cannot be meant.

    `config` has passed `options.run_spec`; `before` is the config under which the run went until now: what both have
    in common is not complained of.
    """
    asked, had = flat(config), flat(before or {})
    was, now = had.get("train.budget", ""), asked.get("train.budget", "")
    if before is not None and bool(was) != bool(now):
        raise UserError(
            f"train.budget={now!r}, but the run was begun with {was!r}: a run has a budget from its first step, or "
            "none; begin one in another --workdir"
        )
    wrong = [
        said
        for fields, said in (*_out_of_range(asked), *_clashes(asked))
        if any(field not in had or had[field] != asked[field] for field in fields)
    ]
    if wrong:
        raise UserError("; ".join(wrong))


def check_ranges(config: Mapping[str, Any]) -> None:
    """Raises UserError, naming every one, for numbers out of their range, whatever the other options are."""
    plain = config.to_dict() if hasattr(config, "to_dict") else config
    if wrong := [said for _, said in _out_of_range(flat(plain))]:
        raise UserError("; ".join(wrong))


# What is wrong, and the fields that must differ from the last start's for it to be said.
_Complaint = tuple[Sequence[str], str]


def _out_of_range(asked: Mapping[str, Any]) -> list[_Complaint]:
    found: list[_Complaint] = []
    ranges = RANGES | registry.ranges(asked.get("objective.name"))
    for field, value in asked.items():
        if field == "train.phases":
            found += [
                ([field], f"train.phases[{number}].{name}={one} is out of range; expected {within}")
                for number, phase in enumerate(value)
                for name, one in phase.items()
                if (within := ranges.get(f"{field}.{name}")) and one not in within
            ]
        elif within := ranges.get(field):
            numbers = value if isinstance(value, list | tuple) else [value]
            if any(number not in within for number in numbers):
                found.append(([field], f"{field}={value} is out of range; expected {within}"))
    return found


def _clashes(asked: Mapping[str, Any]) -> list[_Complaint]:
    steps, stop_at, warmup = (asked[f] for f in ("train.steps", "train.stop_at", "optim.warmup"))
    found: list[_Complaint] = []
    if stop_at > steps:
        said = (
            f"train.stop_at={stop_at} is beyond the last step, train.steps={steps}; 0 stops there"
        )
        found.append((["train.stop_at", "train.steps"], said))
    phases = asked["train.phases"]
    if warmup > steps and (not phases or not all(phase.get("peak_lr") for phase in phases)):
        said = (
            f"optim.warmup={warmup} is longer than train.steps={steps}, so that the learning rate never comes near "
            f"optim.peak_lr; choose a warmup of at most {steps}, such as {max(1, steps // 10)}, or more steps"
        )
        found.append((["optim.warmup", "train.steps"], said))
    decay = asked.get("optim.decay_steps", 0)
    if decay > steps - warmup >= 0:
        said = (
            f"optim.decay_steps={decay} is longer than what train.steps={steps} leaves after optim.warmup={warmup}; "
            f"choose at most {steps - warmup}, or more steps"
        )
        found.append((["optim.decay_steps", "optim.warmup", "train.steps"], said))
    for number, phase in enumerate(phases):
        if phase.get("decay_steps", 0) > phase["steps"] - phase.get("warmup", 0) >= 0:
            said = (
                f"train.phases[{number}].decay_steps={phase['decay_steps']} is longer than its "
                f"steps={phase['steps']} after its warmup; choose a shorter decay"
            )
            found.append((["train.phases"], said))
        if phase.get("warmup", 0) > phase["steps"]:
            said = (
                f"train.phases[{number}].warmup={phase['warmup']} is longer than its steps={phase['steps']}; choose "
                "a shorter warmup"
            )
            found.append((["train.phases"], said))
    if asked.get("objective.sentence") == "next" and asked["train.batch"] == 1:
        said = (
            "objective.sentence=next takes the second segment of another row of the batch, and train.batch=1 has none; "
            "choose at least 2"
        )
        found.append((["objective.sentence", "train.batch"], said))
    objective = {
        key.removeprefix("objective."): x
        for key, x in asked.items()
        if key.startswith("objective.")
    }
    return [*found, *registry.clashes(objective)]


def shorten_warmup(
    recipe: Mapping[str, Any], asked: dict[str, Any], before: Mapping[str, Any] | None
) -> str | None:
    """Scales, in place, the warmup of a recipe whose run was made shorter than that; returns what to say of it.

    `asked` is the recipe with the user's options. Where these name the warmup, or the recipe's own is no part of its
    run, nothing changes, nor where `before`, the config of the run that goes on, has that warmup.
    """
    warmup, steps = asked["optim"]["warmup"], asked["train"]["steps"]
    own, of = recipe["optim"]["warmup"], recipe["train"]["steps"]
    if before is not None and before["optim"]["warmup"] == warmup:
        return None
    if asked["train"]["phases"] or not steps < warmup == own <= of:
        return None
    asked["optim"]["warmup"] = shorter = max(1, round(steps * own / of))
    return (
        f"train.steps={steps} is shorter than the recipe's warmup of {warmup} steps: optim.warmup is {shorter}, the "
        "same share of the run"
    )
