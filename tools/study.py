#!/usr/bin/env python3
"""What is each part of the modern recipe worth? Pretrains arms at equal FLOPs, measures each, and tabulates them.

    python tools/study.py --data ../shared/data --workdir study/
    python tools/study.py --data ../shared/data --workdir study/ --arms modern-gdes electra --languages en --seeds 0

An arm is a recipe with some settings and the arm it is compared with, its control. Every run of it gets as many useful
training FLOPs (--flops) and is then evaluated, fine-tuned and scored on minimal pairs. A measured figure is in
docs/results/modern.json, and in the tables of modern.md, at once; the same command goes on where it was stopped. The
rule by which an arm is called better stands in docs/results/modern.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evidence

from electra_jax import files
from electra_jax.data.source import open_prepared
from electra_jax.pretrain import speed
from electra_jax.pretrain.options import SPECS, RunSpec, complete, run_spec, with_own_options
from electra_jax.spec import load_config, overridden
from electra_jax.workdir.record import RECORD

ROOT = Path(__file__).resolve().parent.parent
LENGTH = 128  # tokens a row
TABLES = "<!-- tables by tools/study.py -->"
DEVIATIONS = 2  # a difference counts beyond so many standard deviations of single runs


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A recipe with settings; `control` is the arm that lacks only what this one's name says."""

    name: str
    settings: str  # flags of `pretrain`, without --config.; of one key the last counts
    control: str = ""
    headline: bool = False  # three seeds and every language; else two seeds of English


@dataclass(frozen=True, kw_only=True)
class Language:
    """Text and tasks of a language."""

    name: str
    text: str  # under --data
    held_out: str = ""  # text to evaluate on; empty: a part of the text
    vocabulary: int
    tasks: tuple[str, ...]  # of tools/evidence.py
    pairs: str = ""  # minimal pairs under --data


# One shape for all: 4 layers of width 128, a generator of half the depth, everything else as in `electra-mini`.
SHAPE = "model.layers=4 model.generator_layers=0.5 train.batch=32 objective.mask_prob=0.2"
POST = f"{SHAPE} model.tying=embeddings"
# The encoder of `mini`. With a gate, 384 channels of three matrices are as many parameters as 512 of two.
ENCODER = (
    "model.family=modern model.types=1 model.heads=2 model.ffn=384 model.init_std=0.02 "
    "model.global_attn_every_n_layers=1 model.global_rope_theta=10000"
)
MUON = "optim.name=muon optim.peak_lr=0.02 optim.adam_ratio=0.1 optim.weight_decay=0.0"
MODERN = f"{SHAPE} model.tying=embeddings {ENCODER} {MUON}"
ADAMW = f"{SHAPE} model.tying=embeddings {ENCODER}"
ARMS: tuple[Arm, ...] = (
    Arm(name="electra", settings=POST, headline=True),
    Arm(
        name="electra-mlm", settings=f"{POST} objective.name=mlm", control="electra", headline=True
    ),
    Arm(name="modern", settings=MODERN, control="electra", headline=True),
    Arm(
        name="modern-mlm", settings=f"{MODERN} objective.name=mlm", control="modern", headline=True
    ),
    Arm(name="modern-gdes", settings=f"{MODERN} model.tying=gdes", control="modern", headline=True),
    # What the encoder and the optimizer are worth by themselves.
    Arm(name="electra-muon", settings=f"{POST} {MUON}", control="electra"),
    Arm(name="modern-adamw", settings=ADAMW, control="modern"),
    Arm(name="electra-gdes", settings=f"{POST} model.tying=gdes", control="electra"),
    Arm(name="modern-all", settings=f"{MODERN} model.tying=all", control="modern"),
    # Objectives.
    *(
        Arm(name=f"modern-{name}", settings=f"{MODERN} objective.name={name}", control="modern")
        for name in ("electra_15", "replace_mlm", "all_tokens_mlm", "adversarial", "electric")
    ),
    # Options.
    Arm(name="modern-whole-word", settings=f"{MODERN} objective.whole_word=True", control="modern"),
    Arm(name="modern-spans", settings=f"{MODERN} objective.masking=spans", control="modern"),
    Arm(name="modern-ngrams", settings=f"{MODERN} objective.masking=ngrams", control="modern"),
    Arm(name="modern-grouped", settings=f"{MODERN} objective.sampler=grouped", control="modern"),
    Arm(
        name="modern-stable-adamw",
        settings=f"{ADAMW} optim.name=stable_adamw",
        control="modern-adamw",
    ),
)
LANGUAGES = (
    Language(
        name="en",
        text="pretrain/*.txt.gz",
        held_out="pretrain/valid/*.txt.gz",
        vocabulary=4096,
        tasks=("ner", "squad1", "stsb", "cola"),
        pairs="blimp/blimp-first200.jsonl.gz",
    ),
    Language(
        name="zh", text="pretrain_other/zhwiki-*.txt.gz", vocabulary=8192, tasks=("chnsenticorp",)
    ),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One pretraining run and its place."""

    language: Language
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.language.name}-{self.arm.name}-{self.seed}"


def main() -> None:
    """Runs what is missing, seed by seed, and writes each figure as it comes."""
    options = parse()
    home, data = Path(options.workdir), Path(options.data)
    for run in runs(options):
        prepare(run.language, home, data)
        pretrain(run, options, home)
        for figure, value in measured(run, options, home, data):
            record(options, run, figure, value)


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with pretrain/, glue/, blimp/, ...")
    parser.add_argument("--workdir", required=True, help="everything that is made goes here")
    parser.add_argument("--flops", type=float, default=6e13, help="useful training FLOPs of a run")
    names = [arm.name for arm in ARMS]
    parser.add_argument("--arms", nargs="+", choices=names, default=names)
    spoken = [language.name for language in LANGUAGES]
    parser.add_argument("--languages", nargs="+", choices=spoken, default=spoken)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--finetune", default=evidence.RECIPE, help="flags of every fine-tuning")
    parser.add_argument("--no-tasks", action="store_true", help="pretrain and evaluate alone")
    parser.add_argument("--output", default=str(ROOT / "docs" / "results" / "modern"))
    return parser.parse_args()


def runs(options: argparse.Namespace) -> Iterator[Run]:
    """Every run, the first seed of all arms first, so that a table is whole early."""
    for at, seed in enumerate(options.seeds):
        for language in LANGUAGES:
            for arm in ARMS:
                wanted = arm.name in options.arms and language.name in options.languages
                if wanted and (arm.headline or (at < 2 and language is LANGUAGES[0])):
                    yield Run(language=language, arm=arm, seed=seed)


def prepare(language: Language, home: Path, data: Path) -> None:
    """Vocabulary and rows, once."""
    words, rows = home / f"{language.name}-tok", home / f"{language.name}-data"
    text = ("--input", data / language.text)
    if not words.exists():
        size = ("--kind", "wordpiece", "--size", language.vocabulary)
        evidence.command("vocab", *text, *size, "--output", words)
    if not rows.exists():
        flags = ["--tokenizer", words, "--seq-len", LENGTH, "--output", rows]
        if language.held_out:
            flags += ["--valid-input", data / language.held_out]
        evidence.command("prepare", *text, *flags)


def settings(run: Run, home: Path) -> list[str]:
    """The `key=value` settings of a run but its steps."""
    path = home / f"{run.language.name}-data"
    return [*run.arm.settings.split(), f"data.path={path}", f"train.seed={run.seed}"]


def steps_of(changed: Sequence[str], total_flops: float) -> int:
    """How many steps of the changed `electra-mini:long` cost so many useful training FLOPs."""
    run = options_of(changed)
    (phase,) = run.phases(open_prepared(run.data.path))
    return max(1, round(total_flops / speed.useful_flops(run, phase)))


def options_of(changed: Sequence[str]) -> RunSpec:
    """The options of the changed `electra-mini:long`; UserError for settings that cannot be meant."""
    recipe = complete(with_own_options(load_config("electra-mini:long"), changed))
    return run_spec(overridden(recipe, changed, SPECS).to_dict())


def pretrain(run: Run, options: argparse.Namespace, home: Path) -> None:
    """Trains a run to its last step, or goes on with it."""
    folder = home / run.name
    if (folder / RECORD).exists():
        evidence.command("pretrain", "--workdir", folder)
        return
    changed = settings(run, home)
    steps = steps_of(changed, options.flops)
    changed += [f"train.steps={steps}", f"train.eval_every={-(-steps // 10)}"]
    flags = [f"--config.{setting}" for setting in changed]
    evidence.command("pretrain", "--config", "electra-mini:long", "--workdir", folder, *flags)


def measured(
    run: Run, options: argparse.Namespace, home: Path, data: Path
) -> Iterator[tuple[str, float]]:
    """(name, value) of every figure: held-out losses, minimal pairs, fine-tuned tasks."""
    folder = home / run.name
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    held_out = [line for line in lines if line["split"] == "valid"][-1]
    for name in ("mlm_loss", "disc_auc"):
        if name in held_out:
            yield name, held_out[name]
    if options.no_tasks:
        return
    if run.language.pairs:
        yield "minimal pairs", minimal_pairs(folder, data / run.language.pairs)
    for entry in evidence.ENTRIES:
        if entry.task in run.language.tasks:
            own = argparse.Namespace(seeds=1, finetune=options.finetune)
            found = evidence.finetune(own, entry, run.name, folder, home, data)
            yield entry.name, found["scores"][0][evidence.catalog.get(entry.task).main_metric]


def minimal_pairs(folder: Path, pairs: Path) -> float:
    """The share of pairs, in percent, whose good sentence the model scores higher; kept beside the run."""
    kept = folder / "minimal-pairs.json"
    if not kept.exists():
        line = [sys.executable, "-m", "electra_jax", "score-text", "--json"]
        line += ["--model", str(folder), "--pairs", str(pairs)]
        found = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
        files.write_text(kept, found)
    return 100 * json.loads(kept.read_text())["total"]["accuracy"]


def record(options: argparse.Namespace, run: Run, figure: str, value: float) -> None:
    """Puts one figure into the JSON file and writes the tables anew."""
    path, page = Path(f"{options.output}.json"), Path(f"{options.output}.md")
    rows = json.loads(path.read_text()) if path.exists() else []
    at = {
        "language": run.language.name,
        "arm": run.arm.name,
        "seed": run.seed,
        "figure": figure,
        "flops": options.flops,
    }
    rows = [row for row in rows if {key: row[key] for key in at} != at]
    files.write_json(path, [*rows, at | {"value": value}])
    text = page.read_text() if page.exists() else ""
    kept = text.partition(TABLES)[0].rstrip() + "\n" if text else ""
    files.write_text(page, f"{kept}\n{TABLES}\n{tables([*rows, at | {'value': value}])}")


def tables(rows: list[dict[str, Any]]) -> str:
    """For every language and cost a table of means and deviations, with the verdict beside each control."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["language"], row["flops"]].append(row)
    return "".join(
        f"\n## {language}, {cost:.2g} FLOPs a run\n\n{table(group)}"
        for (language, cost), group in sorted(groups.items())
    )


def table(rows: list[dict[str, Any]]) -> str:
    """A line an arm, a column a figure: mean, deviation over seeds, and what it is beside its control."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["arm"], row["figure"]].append(row["value"])
    figures = list(dict.fromkeys(row["figure"] for row in rows))
    spread = {
        name: pooled([v for (_, figure), v in values.items() if figure == name]) for name in figures
    }
    lines = [
        f"| arm | control | seeds | {' | '.join(figures)} |",
        f"| --- | --- | --- |{' --- |' * len(figures)}",
    ]
    for arm in ARMS:
        found = {name: values[arm.name, name] for name in figures if (arm.name, name) in values}
        if not found:
            continue
        cells = [
            cell(found.get(name, []), values.get((arm.control, name), []), spread[name])
            for name in figures
        ]
        seeds = max(map(len, found.values()))
        lines.append(f"| {arm.name} | {arm.control} | {seeds} | {' | '.join(cells)} |")
    shown = ", ".join(f"{name} {spread[name]:.3g}" for name in figures if spread[name] is not None)
    note = f"\nPooled standard deviation of single runs: {shown or 'not known with one seed'}.\n"
    return "\n".join(lines) + "\n" + note


def pooled(samples: list[list[float]]) -> float | None:
    """The standard deviation of single values within samples; None where every sample is one value."""
    squares = sum(sum((x - statistics.mean(v)) ** 2 for x in v) for v in samples)
    free = sum(len(v) - 1 for v in samples)
    return (squares / free) ** 0.5 if free else None


def cell(values: list[float], control: list[float], spread: float | None) -> str:
    """One figure of an arm; beside a control its difference, bold where the rule calls it one."""
    if not values:
        return ""
    mean = statistics.mean(values)
    digits = 3 if abs(mean) < 10 else 1
    text = f"{mean:.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    if control:
        difference = mean - statistics.mean(control)
        shown = f"{difference:+.{digits}f}"
        beyond = spread is not None and abs(difference) > DEVIATIONS * spread
        text += f" (**{shown}**)" if beyond else f" ({shown})"
    return text


if __name__ == "__main__":
    main()
