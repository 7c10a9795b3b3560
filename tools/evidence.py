#!/usr/bin/env python3
"""Fine-tunes ELECTRA, an equally expensive masked LM and a random encoder on the same tasks, and tabulates them.

    python tools/evidence.py --data ../shared/data --workdir evidence/
    python tools/evidence.py --data ../shared/data --workdir evidence/ --electra run/ --mlm run2/

The first command trains a vocabulary and prepares the English text under --data, pretrains the `electra-mini` recipe as
ELECTRA, on rows of 32 tokens and then of 128 in one run, and, with as many training FLOPs in each phase by the house
formula (the objective's `flops`), as a masked LM; the second takes workdirs that are there. Then every task with
every encoder and three seeds. A finished row is in docs/results/finetuning.json and .md at once; the same command goes
on where it was stopped. Scores are those after the last epoch, on dev, in percent. --chinese adds ChnSentiCorp,
ELECTRA on Chinese text against random.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from electra_jax import files
from electra_jax.data.source import open_prepared
from electra_jax.finetune.kinds import table as kinds
from electra_jax.pretrain import speed
from electra_jax.pretrain.options import run_spec
from electra_jax.tasks.known import catalog
from electra_jax.workdir.record import RECORD, read_record

ROOT = Path(__file__).resolve().parent.parent
Phases = list[dict[str, Any]]
ROWS = ((32, 32), (128, 8))  # tokens a row, rows a batch: those of the recipe's two stages
# The same for all encoders. Of the rates 3e-4, 1e-3 and 2e-3 or 3e-3 the best on dev, one seed each, for pretrained and
# random encoders of width 128 alike (STS-B, CoNLL-2003); each more length of rows is half a minute of compilation.
RECIPE = "--config.optim.peak_lr=1e-3 --config.train.buckets=4"
DIMENSIONS = ("layers", "width", "heads", "ffn", "embedding", "positions", "types")


@dataclass(frozen=True)
class Entry:
    """One task: the row's name, the task, where under --data its files are, and other settings."""

    name: str
    task: str
    train: str
    dev: str
    epochs: int
    examples: int = 0  # 0: all
    chinese: bool = False


ENTRIES = (
    Entry("CoLA", "cola", "glue/CoLA/train.tsv", "glue/CoLA/dev.tsv", 10),
    Entry("SST-2 (20,000)", "sst2", "glue/SST-2/train.tsv", "glue/SST-2/dev.tsv", 3, 20_000),
    Entry("MRPC", "mrpc", "glue/MRPC/train.tsv", "glue/MRPC/dev.tsv", 10),
    Entry("STS-B", "stsb", "glue/STS-B/train.tsv", "glue/STS-B/dev.tsv", 10),
    Entry("SICK", "sick", "nli/SICK_train.txt", "nli/SICK_test_annotated.txt", 10),
    Entry(
        "CoNLL-2003",
        "ner",
        "tagging/conll2003/eng.train.gz",
        "tagging/conll2003/eng.testa.gz",
        5,
    ),
    Entry(
        "SQuAD 1.1 subset",
        "squad1",
        "squad/train-v1.1-subset.json.gz",
        "squad/dev-v1.1-xquad-en.json.gz",
        4,
    ),
    Entry(
        "ChnSentiCorp (4,000)",
        "chnsenticorp",
        "zh/ChnSentiCorp/train.tsv.gz",
        "zh/ChnSentiCorp/dev.tsv.gz",
        5,
        4_000,
        chinese=True,
    ),
)


def main() -> None:
    """Pretrains what is missing, then fills the table row by row."""
    options = parse()
    home, data = Path(options.workdir), Path(options.data)
    encoders = english(options, home, data)
    chinese = [e for e in ENTRIES if e.chinese] if options.chinese else []
    wanted = [e for e in ENTRIES if not e.chinese] + chinese
    if options.tasks:
        wanted = [e for e in wanted if e.task in options.tasks.split(",")]
    of_chinese = chinese_encoders(options, home, data) if any(e.chinese for e in wanted) else {}
    for entry in wanted:
        record(options, entry, "majority", {"scores": [majority(entry, data)], "seconds": 0.0})
        for name, init in (of_chinese if entry.chinese else encoders).items():
            result = finetune(options, entry, name, init, home, data)
            record(options, entry, name, result)


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with pretrain/, glue/, nli/, ...")
    parser.add_argument("--workdir", required=True, help="everything that is made goes here")
    parser.add_argument("--electra", help="pretraining workdir, in place of pretraining")
    parser.add_argument("--mlm", help="pretraining workdir of the masked LM")
    parser.add_argument(
        "--recipe", default="electra-mini", help="recipe of the encoders (default: electra-mini)"
    )
    parser.add_argument(
        "--steps",
        default="8000,8000",
        help="ELECTRA steps on rows of 32 and of 128 tokens (default: 8000,8000)",
    )
    parser.add_argument("--pretrain", default="", help="more flags of both pretraining runs")
    parser.add_argument(
        "--finetune", default=RECIPE, help=f"more flags of every fine-tuning (default: '{RECIPE}')"
    )
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--chinese-vocab-size", type=int, default=8192)
    parser.add_argument("--input", default="pretrain/*.txt.gz", help="English text under --data")
    parser.add_argument("--chinese-input", default="pretrain_other/zhwiki-*.txt.gz")
    parser.add_argument("--tasks", help="only these, such as cola,sst2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--chinese", action="store_true", help="ChnSentiCorp too")
    parser.add_argument("--chinese-electra", help="pretraining workdir on Chinese text")
    parser.add_argument("--output", default=str(ROOT / "docs" / "results" / "finetuning"))
    return parser.parse_args()


def english(options: argparse.Namespace, home: Path, data: Path) -> dict[str, Path | None]:
    """Encoder name -> pretraining workdir; None is a random one of the same shape."""
    electra = Path(options.electra) if options.electra else home / "electra"
    if not options.electra:
        phases = prepare(options, home, "en", data / options.input, options.vocab_size)
        pretrain(options, electra, phases)
    mlm = Path(options.mlm) if options.mlm else home / "mlm"
    if not options.mlm:
        phases = equally_expensive(read_record(electra))
        pretrain(options, mlm, phases, "--config.objective.name=mlm")
    return {"electra": electra, "mlm": mlm, "random": None}


def chinese_encoders(options: argparse.Namespace, home: Path, data: Path) -> dict[str, Path | None]:
    """The Chinese encoders."""
    electra = Path(options.chinese_electra) if options.chinese_electra else home / "electra-zh"
    if not options.chinese_electra:
        text = data / options.chinese_input
        phases = prepare(options, home, "zh", text, options.chinese_vocab_size)
        pretrain(options, electra, phases)
    return {"electra": electra, "random": None}


def prepare(
    options: argparse.Namespace, home: Path, name: str, text: Path, vocab_size: int
) -> Phases:
    """Vocabulary and the rows of each phase, once: ELECTRA's `train.phases`."""
    words = home / f"{name}-tok"
    if not words.exists():
        size = ("--kind", "wordpiece", "--size", vocab_size)
        command("vocab", "--input", text, *size, "--output", words)
    phases = []
    for (length, batch), steps in zip(ROWS, options.steps.split(","), strict=True):
        folder = home / f"{name}-data{length}"
        if not folder.exists():
            flags = ("--tokenizer", words, "--seq-len", length, "--output", folder)
            command("prepare", "--input", text, *flags)
        phases.append({"steps": int(steps), "path": str(folder), "batch": batch})
    return phases


def pretrain(options: argparse.Namespace, run: Path, phases: Phases, *more: str) -> None:
    """Trains a run to its last step, or goes on with it."""
    if (run / RECORD).exists():
        command("pretrain", "--workdir", run)
        return
    steps = sum(phase["steps"] for phase in phases)
    command(
        *("pretrain", "--config", options.recipe, "--workdir", run),
        *(f"--config.data.path={phases[0]['path']}", f"--config.train.steps={steps}"),
        *(f"--config.train.phases={tuple(phases)}", *more, *shlex.split(options.pretrain)),
    )


def equally_expensive(found: dict[str, Any]) -> Phases:
    """`train.phases` of a masked LM: in each phase of this ELECTRA run its data, batch and training FLOPs."""
    run = run_spec(found["config"])
    phases = []
    for phase in run.phases(open_prepared(run.data.path)):
        other = replace(run, objective={**run.objective, "name": "mlm"})
        a, b = (speed.useful_flops(each, phase) for each in (run, other))
        steps = round((phase.last - phase.first) * a / b)
        phases.append({"steps": steps, "path": str(phase.data.path), "batch": phase.batch})
    return phases


def finetune(
    options: argparse.Namespace,
    entry: Entry,
    name: str,
    init: Path | None,
    home: Path,
    data: Path,
) -> dict[str, Any]:
    """The main dev scores of all seeds, and seconds a seed."""
    run = home / "finetuned" / f"{entry.task}-{name}"
    if not (run / "finetune.json").exists():
        flags: list[Any] = ["--train", data / entry.train, "--dev", data / entry.dev]
        flags += [f"--config.train.epochs={entry.epochs}"]
        if entry.examples:
            flags += ["--train-examples", entry.examples]
        if init is None:
            model = home_of(options, home, entry.chinese)
            section = read_record(model)["config"]["model"]
            flags += ["--init", "random", "--tokenizer", model / "tokenizer"]
            flags += [f"--config.model.{key}={section[key]}" for key in DIMENSIONS]
        else:
            flags += ["--init", init]
        flags += ["--seeds", options.seeds, *shlex.split(options.finetune)]
        command("finetune", "--config", f"finetune:{entry.task}", "--workdir", run, *flags)
    elif not (run / "results.json").exists():
        command("finetune", "--workdir", run)
    found = json.loads((run / "results.json").read_text())
    task = catalog.get(entry.task)
    scores = [r["scores"][task.name]["dev"] for r in found["runs"]]
    seconds = statistics.mean(r["seconds"] for r in found["runs"])
    return {"scores": [numbers(s) for s in scores], "seconds": seconds, "steps": found["steps"]}


def home_of(options: argparse.Namespace, home: Path, chinese: bool) -> Path:
    """The pretraining workdir whose shape and vocabulary the random encoder takes."""
    if chinese:
        return Path(options.chinese_electra) if options.chinese_electra else home / "electra-zh"
    return Path(options.electra) if options.electra else home / "electra"


def majority(entry: Entry, data: Path) -> dict[str, float]:
    """The scores of always saying what is most frequent in the training data (of tags O, of numbers the mean)."""
    task = catalog.get(entry.task)
    dev = task.read(data / entry.dev, "dev")
    if task.kind == "qa":
        return numbers(kinds.score(task, dev, {e.id: "" for e in dev}))
    train = task.read(data / entry.train, "train")
    said: Any
    if task.kind == "regress":
        said = [statistics.mean(e.label for e in train)] * len(dev)
    elif task.kind == "tag":
        said = [("O",) * len(e.words) for e in dev]
    else:
        said = [Counter(e.label for e in train).most_common(1)[0][0]] * len(dev)
    return numbers(kinds.score(task, dev, said))


def numbers(scores: dict[str, Any]) -> dict[str, float]:
    """The scores without tables of types."""
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def record(options: argparse.Namespace, entry: Entry, encoder: str, result: dict[str, Any]) -> None:
    """Puts one row into the JSON file and writes the table anew."""
    path = Path(f"{options.output}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [r for r in rows if (r["task"], r["encoder"]) != (entry.name, encoder)]
    metric = catalog.get(entry.task).main_metric
    values = [s[metric] for s in result["scores"]]
    rows.append(
        {
            "task": entry.name,
            "metric": metric,
            "encoder": encoder,
            "n": len(values),
            "mean": statistics.mean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            **result,
        }
    )
    order = {e.name: i for i, e in enumerate(ENTRIES)}
    rows.sort(key=lambda r: order[r["task"]])
    files.write_json(path, rows)
    files.write_text(f"{options.output}.md", table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """A line a task, a column an encoder: mean ± standard deviation of a sample over seeds."""
    columns = ("electra", "mlm", "random", "majority")
    lines = [
        "# Fine-tuned: ELECTRA, masked LM, random",
        "",
        "Dev scores after the last epoch, in percent, mean ± standard deviation over seeds. "
        "Written by `tools/evidence.py`.",
        "",
        f"| task | metric | seeds | {' | '.join(columns)} |",
        f"| --- | --- | --- |{' --- |' * len(columns)}",
    ]
    for name in dict.fromkeys(r["task"] for r in rows):
        found = {r["encoder"]: r for r in rows if r["task"] == name}
        first = next(iter(found.values()))
        seeds = max(r["n"] for r in found.values())
        cells = [cell(found.get(column)) for column in columns]
        lines.append(f"| {name} | {first['metric']} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(row: dict[str, Any] | None) -> str:
    """One number of the table."""
    if row is None:
        return ""
    spread = "" if row["std"] is None else f" ± {row['std']:.1f}"
    return f"{row['mean']:.1f}{spread}"


def command(*arguments: Any) -> None:
    """Runs one electra-jax command; stops at its error."""
    line = ["-m", "electra_jax", *(str(a) for a in arguments)]
    print(f"$ electra-jax {shlex.join(line[2:])}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *line], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
