"""The flags of the commands that use a model: finetune, predict, score, score-text."""

import argparse

from electra_jax.cli.grammar import Command, at_least
from electra_jax.cli.run_flags import several_processes


def finetune(command: Command) -> None:
    """Adds `finetune`."""
    c = command(
        "finetune",
        "fine-tune an encoder on a task, with one seed or many, or resume",
        "electra-jax finetune --config configs/finetune.py:sst2 --init hf/discriminator "
        "--data-dir glue/ --workdir ft/ --seeds 5",
    )
    c.add_argument(
        "--config",
        help="finetune:TASK, file.py:TASK or the file of a task of your own (default: the one in the workdir)",
    )
    c.add_argument("--workdir", required=True, help="folder of the results")
    c.add_argument(
        "--init", help="pretraining workdir, Hugging Face folder, fine-tuned workdir, or random"
    )
    c.add_argument(
        "--data-dir", metavar="DIR", help="the task's files in their official layout, or tfds"
    )
    for split in ("train", "dev", "test"):
        c.add_argument(f"--{split}", metavar="FILE", help=f"your own {split} file")
    for column in ("text", "pair", "label"):
        c.add_argument(f"--{column}", metavar="COLUMN", help=f"the {column}'s column in your files")
    c.add_argument("--tokenizer", help="vocabulary of a random encoder")
    c.add_argument("--seeds", type=at_least(1), metavar="N", help="runs, one a seed (default: 1)")
    c.add_argument("--sweep", metavar="LR,LR", help="peak learning rates, each with all seeds")
    c.add_argument(
        "--train-examples",
        type=at_least(1),
        metavar="N",
        help="train on N examples, drawn by seed",
    )
    several_processes(c)


def predict(command: Command) -> None:
    """Adds `predict`."""
    c = command(
        "predict",
        "label new data with a fine-tuned workdir",
        "electra-jax predict --workdir ft/ --input new.tsv --output predictions.tsv",
    )
    c.add_argument("--workdir", required=True, help="folder written by finetune")
    c.add_argument("--input", required=True, help="a file like the training data, labels optional")
    c.add_argument("--output", required=True, help="new file (.tsv; of question answering .json)")
    c.add_argument(
        "--probabilities",
        action="store_true",
        help="a column p_CLASS for each class; of tags JSON lines, of questions the n best answers",
    )
    c.add_argument("--task", help="which, of a workdir with several")
    which = c.add_mutually_exclusive_group()
    which.add_argument("--run", help="such as seed0 (default: the best on dev)")
    which.add_argument("--ensemble", action="store_true", help="the mean of all finished runs")


def score(command: Command) -> None:
    """Adds `score`."""
    c = command(
        "score",
        "score a file of predictions by a task's official metrics, as JSON",
        "electra-jax score --task squad2 --references dev-v2.0.json --predictions predictions.json",
    )
    c.add_argument(
        "--task",
        required=True,
        metavar="NAME",
        help="sst2, squad1, squad2, ner, ... (docs/tasks.md lists them); or classify, regress, "
        "tag, qa, choice, relation for references of your own",
    )
    c.add_argument("--references", required=True, metavar="FILE", help="labelled file of the task")
    c.add_argument(
        "--predictions",
        required=True,
        metavar="FILE",
        help="questions: JSON id -> text; tagging: a word a line, the tag last; "
        "else a table with the columns index and prediction",
    )
    c.add_argument(
        "--null-odds", metavar="FILE", help="JSON id -> how much speaks for no answer (squad2)"
    )
    c.add_argument(
        "--null-threshold",
        type=float,
        default=1.0,
        metavar="X",
        help="odds above it mean no answer (default: 1.0, as in the official script)",
    )
    for name in ("text", "label", "id"):
        c.add_argument(
            f"--{name}", metavar="COLUMN", help=f"column of the {name} in references of your own"
        )


def score_text(command: Command) -> None:
    """Adds `score-text`."""
    c = command(
        "score-text",
        "score texts by a pretrained model: pseudo-log-likelihoods, or how original a discriminator finds them",
        "electra-jax score-text --model run/ 'The cats sit on the mat.' 'The cats sits on the mat.'\n"
        "  electra-jax score-text --model hf/generator --input texts.txt --json > scores.jsonl\n"
        "  electra-jax score-text --model run/ --head masked-lm --pairs blimp.jsonl.gz",
    )
    c.add_argument(
        "--model", required=True, metavar="DIR", help="pretraining workdir, or model folder"
    )
    c.add_argument("text", nargs="*", metavar="TEXT", help="what to score; - for standard input")
    c.add_argument(
        "--input", default="", metavar="FILE", help="a text a line; - for standard input"
    )
    c.add_argument(
        "--pairs",
        default="",
        metavar="FILE",
        help="JSON lines with sentence_good and sentence_bad (BLiMP): in what share is the good one scored higher",
    )
    c.add_argument(
        "--head",
        default="",
        metavar="NAME",
        help="which, of a model with several: energy, masked-lm (of a generator, too), detection (default: that of the "
        "model to fine-tune)",
    )
    c.add_argument(
        "--word-l2r",
        action="store_true",
        help="masked LM: mask the rest of the word together with each of its tokens",
    )
    c.add_argument(
        "--windows",
        action="store_true",
        help="score what is longer than the model reads in windows that overlap (default: refuse it)",
    )
    c.add_argument("--tokens", action="store_true", help="a line for every token, too")
    c.add_argument(
        "--json", dest="as_json", action="store_true", help="a JSON object a text, tokens included"
    )
    c.add_argument("--step", type=at_least(0), help="checkpoint of a workdir (default: the newest)")
    c.add_argument(
        "--average", action="store_true", help="the average of a workdir's weights in their place"
    )


def overrides(options: argparse.Namespace) -> list[str]:
    """The flags of finetune as overrides of its config; what is overridden by name comes last."""
    named = {
        "init": options.init,
        "data.dir": options.data_dir,
        "data.tokenizer": options.tokenizer,
        "train.seeds": options.seeds,
        "train.examples": options.train_examples,
    }
    names = ("train", "dev", "test", "text", "pair", "label")
    named |= {f"data.{name}": getattr(options, name) for name in names}
    found = [f"{key}={value}" for key, value in named.items() if value is not None]
    if options.sweep is not None:
        found.append(f"train.sweep=({options.sweep},)")
    return [*found, *options.overrides]
