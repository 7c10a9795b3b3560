"""The tour: calls the commands a user would call, on text that every Python carries, and shows what came out."""

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_jax import files
from electra_jax.spec import UserError
from electra_jax.text.sources import builtin, documents

VOCABULARY = 1024
LENGTH = 32
HELD_OUT = 0.1  # of the documents; the corpus is too small for the usual hundredth

# Metric, its name here, what is better, and how to get there by counting words (electra_jax.pretrain.baselines).
_ROWS = (
    ("mlm_loss", "generator: loss of masked words", "lower", "word frequencies"),
    ("mlm_accuracy", "generator: masked words guessed", "higher", "the most frequent word"),
    ("disc_auc", "discriminator: AUC", "higher", "rare words look replaced"),
    ("disc_accuracy", "discriminator: accuracy", "higher", 'always "original"'),
    ("disc_recall", "discriminator: replaced words found", "higher", 'always "original"'),
)


def run(workdir: str, inputs: Sequence[str] | None = None) -> None:
    """The whole path in the new folder `workdir`, on the files `inputs` or on this Python's documentation.

    Raises UserError for a folder that exists and for input that cannot be read; leaves nothing behind when preparing
    the data fails.
    """
    started = time.perf_counter()
    home = Path(workdir)
    files.refuse_existing(home)
    if inputs:
        documents.check(documents.expand(inputs))
    try:
        corpus, held_out = _corpus(home, inputs)
        _say("A vocabulary of word pieces, trained on that text")
        tok = home / "tok"
        _command("vocab", *corpus, "--kind", "wordpiece", "--size", VOCABULARY, "--output", tok)
        _say("Rows of token ids; some documents are held out and never trained on")
        prepare = ("prepare", *corpus, *held_out, "--tokenizer", tok, "--seq-len", LENGTH)
        _command(*prepare, "--output", home / "data")
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    _say(
        "Pretraining: the generator fills in masked words, the discriminator says which words it changed"
    )
    trained = home / "run"
    data = f"--config.data.path={home / 'data'}"
    _command("pretrain", "--config", "quickstart", "--workdir", trained, data)
    _say("Held-out text, before and after")
    after = json.loads(_command("evaluate", "--workdir", trained, quiet=True))
    from electra_jax import (
        verdict,
    )  # imports jax, which the commands so far did in their own processes

    _table(_first_line(trained), verdict.by_counting(trained), after)
    _say("Hugging Face folders of both networks")
    _command("export", "--workdir", trained, "--output", home / "hf")
    _say("A held-out sentence with one word replaced, as the discriminator sees it")
    print(verdict.of_sentences(trained, seed=0))
    _say(f"Done in {time.perf_counter() - started:.0f} s. What to type next")
    print(_next(home))


def _corpus(home: Path, inputs: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The flags that name the text, and those that name what is held out."""
    if inputs:
        return ["--input", *inputs], ["--valid-fraction", str(HELD_OUT)]
    found = builtin.documents()
    cut = round(len(found) * HELD_OUT)
    parts = {"valid.txt": found[:cut], "train.txt": found[cut:]}
    folder = home / "corpus"
    with files.disk_errors(home):
        folder.mkdir(parents=True)
    for name, part in parts.items():
        files.write_text(
            folder / name, "\n\n".join("\n".join(paragraphs) for paragraphs in part) + "\n"
        )
    size = sum(len(p) for document in found for p in document)
    _say("A corpus: English from the documentation of this Python")
    print(
        f"{folder}: {len(found)} documents, {size / 1e6:.1f} million characters, a paragraph a line"
    )
    train, valid = str(folder / "train.txt"), str(folder / "valid.txt")
    return ["--input", train], ["--valid-input", valid]


def _command(*words: object, quiet: bool = False) -> str:
    """Runs and shows `electra-jax ...` as typed in a shell; returns what it printed if `quiet`."""
    arguments = [str(word) for word in words]
    print(f"$ electra-jax {shlex.join(arguments)}", flush=True)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "electra_jax", *arguments],
        stdout=subprocess.PIPE if quiet else None,
        text=True,
    )
    try:
        printed, _ = process.communicate()
    except KeyboardInterrupt:
        process.terminate()  # it says what became of its work
        process.wait()
        raise
    if process.returncode < 0:
        raise UserError(f"electra-jax {arguments[0]} was ended by signal {-process.returncode}")
    if process.returncode:
        raise SystemExit(process.returncode)  # the command has said why
    print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    return printed or ""


def _say(title: str) -> None:
    print(f"\n--- {title}", flush=True)


def _first_line(trained: Path) -> dict[str, Any]:
    """The held-out metrics of the parameters the run began with."""
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    found = (json.loads(line) for line in lines)
    return next(line for line in found if (line["step"], line["split"]) == (0, "valid"))


def _table(before: dict[str, Any], trivial: dict[str, float], after: dict[str, Any]) -> None:
    """Prints the metrics of both evaluations beside what needs no model."""
    print(f"{'':38}{'before':>9}{'after':>9}{'without a model':>17}")
    for name, title, better, how in _ROWS:
        old, new = before[name], after[name]
        beaten = new < trivial[name] if better == "lower" else new > trivial[name]
        note = "" if beaten else "  (not beaten)"
        print(f"{title:38}{old:9.3f}{new:9.3f}{trivial[name]:17.3f}  {how}{note}")
    print(f"{after['replaced_fraction']:.1%} of the words it judges are the generator's.")


def _next(home: Path) -> str:
    return f"""\
the same with your own text:
    electra-jax quickstart --workdir mine --input 'my/*.txt'
a model that learns more (a quarter of an hour on two cores), continued whenever you like by repeating the command:
    electra-jax pretrain --config mini --workdir mini --config.data.path={shlex.quote(str(home / "data"))}
the curves, if you have TensorBoard:
    tensorboard --logdir {shlex.quote(str(home / "run" / "tensorboard"))}
every word, original or replaced, in Python with transformers:
    pipeline("token-classification", {str(home / "hf" / "discriminator")!r})("some text")"""
