"""Runs that are broken on purpose, and one that is not: trained for real by the commands that a user would type.

    python tests/doctor/broken.py FOLDER [CASE ...]

trains all of them there, or those named (about four minutes of two cores for all), and writes what they logged to
tests/doctor/logs, rounded, without speeds and paths: what the fast tests read. The text is the documentation that every
Python carries.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from electra_jax.text.sources import builtin

LOGS = Path(__file__).parent / "logs"
ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(Path(__file__).resolve().parent / "electra.py")
SHIPPED = "tour"  # the case of the shipped recipe quickstart, as it is
# One letter for another: Greek to the eye, English to a counter.
GREEK = str.maketrans("abcdefghijklmnopqrstuvwxyz", "αβκδεφγηιξκλμνοπκρστυωωχψζ")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SHUFFLED = '''"""Detection with the labels of each row shuffled: there is nothing to learn from them."""

import jax.numpy as jnp

from electra_jax.objective import electra, losses, pair
from electra_jax.ops import noise

Options, RANGES = electra.Options, electra.RANGES


class Shuffled(electra.ElectraObjective):
    def _forward(self, context):
        batch, generated = context.batch, self._generate(context)
        fake_BxL, replaced_BxL = pair.replace(batch, generated.sampled_BxK)
        draw = noise.for_rows(context.keys["sample"], batch["rows"]).at(7)
        order_BxL = jnp.argsort(noise.uniform(draw, noise.count(fake_BxL.shape[1])), axis=1)
        label_BxL = jnp.take_along_axis(replaced_BxL, order_BxL, axis=1)
        logit_BxL = pair.detect(self.dims, context.params, batch, fake_BxL)
        valid_BxL = batch["docs"] > 0
        sums = pair.generator_sums(batch, generated)
        sums |= losses.detection_sums(logit_BxL, label_BxL, valid_BxL)
        tokens = {"ids": fake_BxL, "score": logit_BxL, "label": label_BxL, "valid": valid_BxL}
        return sums, tokens


make = Shuffled
'''
# Name -> the data, and what is different from RECIPE. 800 steps of 32 rows of 32 tokens, but for `well`, which goes on
# until one can say that it learns.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "well": ("english", ("train.steps=3000", "train.stop_at=1500")),
    "rate": ("english", ("optim.peak_lr=0.4",)),  # 100 times that of the recipe
    # The generator is as large as the discriminator, and what comes next in the text is certain.
    "generator": ("counting", ("model.tying=all",)),
    "labels": ("english", ("objective.name=shuffled.py",)),
    "copies": ("copies", ()),  # one document, sixty times
    "vocabulary": ("greek", ()),
    SHIPPED: (
        "english",
        ("train.steps=1500", "train.stop_at=1000"),
    ),  # another encoder and optimizer, and nothing wrong with it
}


def command(folder: Path, *words: str) -> str:
    """What `electra-jax` says on stderr; raises for an exit status other than 0."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-m", "electra_jax", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stderr


def prepare(folder: Path) -> None:
    """The prepared data of all cases, in a folder that is there."""
    text = ["\n".join(paragraphs) for paragraphs in builtin.documents()]
    cut = len(text) // 10
    one = next(t for t in text[cut:] if 6_000 < len(t) < 9_000)
    rng = random.Random(0)
    texts = {
        "english": (text[cut:], text[:cut]),
        "counting": (_counting(rng, 400), _counting(rng, 30)),
        "copies": ([one] * 60, text[:cut]),
        "greek": ([t.lower().translate(GREEK) for t in text[cut:]], []),
    }
    for name, parts in texts.items():
        for split, part in zip(("train", "valid"), parts, strict=True):
            (folder / f"{name}-{split}.txt").write_text("\n\n".join(part) + "\n")
    for name, size in (("english", "1024"), ("counting", "60")):
        words = ("--kind", "wordpiece", "--size", size, "--output", f"tok-{name}")
        command(folder, "vocab", "--input", f"{name}-train.txt", *words)
    for name, (_, valid) in texts.items():
        tok = "tok-counting" if name == "counting" else "tok-english"
        held = ("--valid-input", f"{name}-valid.txt") if valid else ("--valid-fraction", "0.1")
        words = ("--tokenizer", tok, "--seq-len", "32", "--output", f"data-{name}")
        command(folder, "prepare", "--input", f"{name}-train.txt", *held, *words)
    (folder / "shuffled.py").write_text(SHUFFLED)


def _counting(rng: random.Random, documents: int) -> list[str]:
    """Texts in which one two three goes on for ever, each line from another number."""

    def line() -> str:
        first = rng.randrange(len(NUMBERS))
        return " ".join(NUMBERS[(first + i) % len(NUMBERS)] for i in range(24)) + "."

    return ["\n".join(line() for _ in range(20)) for _ in range(documents)]


def train(folder: Path, name: str) -> str:
    """Trains a case into FOLDER/NAME; what it said."""
    data, overrides = CASES[name]
    common = (
        "train.steps=800",
        "train.log_every=25",
        "train.eval_every=250",
        "train.checkpoint_every=3000",
        "report.tensorboard=False",
        f"data.path=data-{data}",
    )
    flags = [f"--config.{one}" for one in (*common, *overrides)]
    recipe = "quickstart" if name == SHIPPED else RECIPE
    return command(folder, "pretrain", "--config", recipe, "--workdir", name, *flags)


def logged(folder: Path) -> dict[str, Any]:
    """What doctor reads of a workdir, rounded, without speeds."""
    record = json.loads((folder / "config.json").read_text())
    data = folder.parent / record["config"]["data"]["path"]
    record["config"]["data"]["path"] = data.name
    own = Path(record["config"]["objective"]["name"])
    record["config"]["objective"]["name"] = own.name
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    left_out = ("tokens_per_s", "model_flops_per_s", "mfu", "mfu_of_matmul", "goodput")
    return {
        "record": record,
        "fingerprint": {
            key: value
            for key, value in json.loads((data / "fingerprint.json").read_text()).items()
            if key in ("seq_len", "counts")
        },
        "lines": [{k: _short(v) for k, v in x.items() if k not in left_out} for x in lines],
    }


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def keep(folder: Path, name: str) -> None:
    """Writes what a case logged to LOGS, a line of the log a line."""
    found = logged(folder / name)
    text = json.dumps({**found, "lines": None})[:-5]
    lines = ",\n".join(json.dumps(line) for line in found["lines"])
    (LOGS / f"{name}.json").write_text(f"{text}[\n{lines}\n]}}\n")


def main(folder: Path, names: list[str]) -> None:
    """Trains these cases, or all of them, and keeps what they logged."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    for name in names or CASES:
        said = train(folder, name)
        print(
            name, *(line for line in said.splitlines() if "doctor" in line), sep="\n  ", flush=True
        )
        keep(folder, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
