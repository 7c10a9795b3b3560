#!/usr/bin/env python3
"""Does the fast step learn what another one learns? Trains `electra-mini` with both, on several seeds, and compares.

    python tools/learning.py --data data32/ --workdir learning/
    python tools/learning.py --data data32/ --workdir residual/ --against bfloat16-residuals \
        --config.model.layers=6 --config.model.dtype=bfloat16

The fast step is the one that `pretrain` runs. The plain one takes the plain implementation of every operation: array
functions, differentiated automatically, with the vocabulary head on all logits at once. That of bfloat16-residuals is
the fast one with model.residual_dtype=bfloat16. --config.NAME=VALUE changes the recipe of both. Runs are ordinary runs
under --workdir, one a core side by side, and go on from their last checkpoint when the comparison is started again.
Prints held-out MLM loss and discriminator AUC of each run, and whether the means are within the spread of the seeds
(the larger of the two ranges).
"""

import argparse
import json
import multiprocessing
import os
import statistics
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

FAST = "fast"
OTHERS = ("plain", "bfloat16-residuals")
FIGURES = ("mlm_loss", "disc_auc")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="prepared rows for the recipe")
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--config", default="electra-mini")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--against", choices=OTHERS, default=OTHERS[0])
    args, args.changes = parser.parse_known_args()
    if strange := [x for x in args.changes if not x.startswith("--config.")]:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    runs = [(variant, seed) for seed in args.seeds for variant in (FAST, args.against)]
    work = [(args, *run, number) for number, run in enumerate(runs)]
    with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=1) as pool:
        pool.starmap(train, work, chunksize=1)
    found = {run: held_out(args.workdir / "-".join(map(str, run))) for run in runs}
    print(table(found, args.against))


def train(args: argparse.Namespace, variant: str, seed: int, number: int) -> None:
    """A run on one core, to its last step."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    from electra_jax import cli

    options = {
        "data.path": args.data,
        "train.steps": args.steps,
        "train.seed": seed,
        "train.eval_every": args.steps,
        "train.checkpoint_every": max(1, args.steps // 8),
    }
    if variant == "bfloat16-residuals":
        options["model.residual_dtype"] = "bfloat16"
    overrides = [*args.changes, *(f"--config.{name}={value}" for name, value in options.items())]
    folder = args.workdir / f"{variant}-{seed}"
    config = [] if (folder / "config.json").exists() else ["--config", args.config, *overrides]
    with implementations(variant):
        status = cli.main(["pretrain", "--workdir", str(folder), *config])
    if status:
        raise SystemExit(status)


def implementations(variant: str) -> AbstractContextManager[None]:
    """The context in which a step of this variant is traced."""
    from electra_jax.ops import kernel

    return kernel.plain() if variant == "plain" else nullcontext()


def held_out(folder: Path) -> dict[str, float]:
    """The last evaluation of a run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == "valid"][-1]


def table(found: dict[tuple[str, int], dict[str, float]], against: str) -> str:
    """Markdown: a row a run, then means, and how far they are apart beside how far the seeds are."""
    lines = ["| step | seed | held-out MLM loss | discriminator AUC |", "|---|---|---|---|"]
    for (variant, seed), figures in found.items():
        values = " | ".join(f"{figures[name]:.4f}" for name in FIGURES)
        lines.append(f"| {variant} | {seed} | {values} |")
    for name in FIGURES:
        by = {v: [f[name] for (w, _), f in found.items() if w == v] for v in (FAST, against)}
        means = [statistics.mean(values) for values in by.values()]
        spread = max(max(x) - min(x) for x in by.values())
        apart = abs(means[0] - means[1])
        lines.append(
            f"\n{name}: means {means[0]:.4f} ({FAST}) and {means[1]:.4f} ({against}), {apart:.4f} apart; "
            f"seeds spread over {spread:.4f}: {'within it' if apart <= spread else 'NOT within it'}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
