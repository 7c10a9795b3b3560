"""The command line: every command and its flags."""

import argparse
from collections.abc import Callable, Sequence

from electra_jax import __version__, finetune_flags
from electra_jax.grammar import USAGE, Parser, refuse_unknown_flags, take_overrides

__all__ = ["USAGE", "parse"]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of one command; `command` is its name, `overrides` the ["section.key=value", ...] of a config.

    Exits with status 2 and one line on stderr for what is not a command line of ours, with 0 after --help.
    """
    parser, commands = _parsers()
    rest, overrides = take_overrides(parser, arguments)
    command = rest[0] if rest else ""
    if command in commands:
        if overrides and "--config" not in commands[command]._option_string_actions:
            commands[command].error(f"--config.{overrides[0]}: {command} takes no config")
        refuse_unknown_flags(commands[command], rest[1:])
    elif command.startswith("-"):
        refuse_unknown_flags(parser, rest)
    elif not command:
        parser.error(f"no command; one of {', '.join(commands)}")
    options = parser.parse_args(rest)
    options.overrides = overrides
    return options


def _at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; at least {minimum}")
        return value

    return parse


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value


def _parsers() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """The parser and, by name, those of its commands."""
    parser = Parser(
        prog="electra-jax",
        description="Pretrain ELECTRA in JAX: raw text in, a Hugging Face model out.",
        epilog="Start here: electra-jax quickstart        Help on one: electra-jax pretrain --help",
    )
    parser.add_argument("--version", action="version", version=f"electra-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str, example: str) -> argparse.ArgumentParser:
        description = f"{help[0].upper()}{help[1:]}."
        return commands.add_parser(
            name, help=help, description=description, epilog=f"example:\n  {example}"
        )

    c = command(
        "vocab",
        "train a vocabulary on text",
        "electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 30522 --output tok/",
    )
    _text_flags(c)
    c.add_argument("--kind", required=True, choices=("wordpiece", "unigram", "bpe"))
    c.add_argument("--size", required=True, type=_at_least(1), help="tokens, special ones included")
    c.add_argument("--output", required=True, help="new folder for the tokenizer")
    _case_flags(c, lowercase=True)
    c.add_argument(
        "--sample-bytes",
        type=_at_least(1),
        metavar="N",
        help="train on about N bytes drawn evenly from the input, not on all of it",
    )

    c = command(
        "prepare",
        "turn text into a folder of fixed-length rows of token ids",
        "electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 128 --output data/",
    )
    _text_flags(c)
    c.add_argument(
        "--tokenizer",
        required=True,
        help="our folder, a Hugging Face folder, a vocab.txt or a SentencePiece .model",
    )
    c.add_argument("--seq-len", required=True, type=_at_least(8), metavar="N", help="tokens a row")
    c.add_argument("--output", required=True, help="new folder for the data")
    c.add_argument(
        "--segments",
        choices=("pair", "single", "full"),
        default="pair",
        help="pair: the original's A/B segments; single: one segment a row; "
        "full: rows filled to the end, whatever the paragraphs (default: pair)",
    )
    c.add_argument(
        "--overflow",
        choices=("carry", "drop"),
        default="carry",
        help="text beyond a row's end: carry it to the next row, or drop it as the original does "
        "(default: carry)",
    )
    c.add_argument(
        "--pack",
        action="store_true",
        help="put the rows of several short documents into one, each with positions and attention of its own",
    )
    held_out = c.add_mutually_exclusive_group()
    held_out.add_argument("--valid-input", nargs="+", metavar="GLOB", help="held-out text")
    held_out.add_argument(
        "--valid-fraction",
        type=_fraction,
        default=0.01,
        metavar="F",
        help="fraction of the documents held out (default: 0.01)",
    )
    c.add_argument(
        "--seed", type=_at_least(0), default=0, help="of segments and shuffling (default: 0)"
    )
    c.add_argument(
        "--workers", type=_at_least(1), metavar="N", help="processes (default: the cores)"
    )
    c.add_argument(
        "--runner",
        choices=("processes", "beam"),
        default="processes",
        help="what does the work: processes of this machine, or an engine by Apache Beam "
        "(default: processes)",
    )
    c.add_argument(
        "--beam-options",
        default="",
        metavar="OPTIONS",
        help="Beam's own, in one word: --beam-options='--runner=FlinkRunner ...' (default: this process)",
    )
    c.add_argument(
        "--dedup",
        choices=("exact", "near"),
        help="leave out documents that copy an earlier one: the same text, or nearly the same "
        "(default: keep all)",
    )
    c.add_argument(
        "--segmenter",
        choices=("jieba",),
        help="words of Chinese text for whole-word masking (default: every character is a word)",
    )
    _case_flags(c, lowercase=None)

    c = command(
        "pretrain",
        "pretrain a model, or resume a run that was stopped",
        "electra-jax pretrain --config small --workdir run/ --config.data.path=data/ "
        "--config.train.steps=1000\n  electra-jax pretrain --workdir run/",
    )
    c.add_argument(
        "--config",
        metavar="NAME|FILE.py[:ARG]",
        help="recipe: a shipped name (small, base, large, mini, tiny) or a file; "
        "leave it out to resume",
    )
    c.add_argument("--workdir", required=True, help="folder of the run")
    c.add_argument(
        "--allow-change",
        action="append",
        default=[],
        metavar="FIELD",
        help="resume although this key or section of the config (train.steps, optim, data) differs from "
        "the run's; as often as needed",
    )
    c.add_argument(
        "--config.SECTION.KEY",
        metavar="VALUE",
        dest="overrides",
        help="set one value of the config, as often as needed",
    )

    several = c.add_argument_group(
        "several processes",
        "Under Slurm, Open MPI and on TPU slices they find each other; elsewhere start the same command in "
        "each with these flags, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. "
        "All need the same workdir, on a file system they share.",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="a free port of process 0")
    several.add_argument("--processes", type=_at_least(1), metavar="N", help="how many there are")
    several.add_argument("--process", type=_at_least(0), metavar="I", help="this one's number")
    several.add_argument(
        "--join-timeout",
        type=_at_least(1),
        default=300,
        metavar="S",
        help="seconds to wait until all are there (default: 300)",
    )

    c = command(
        "plan",
        "weigh a run before the machine is rented: compile its step for a TPU that is not there",
        "electra-jax plan --config base --topology v5e:4x4 --topology v6e-8\n"
        "  electra-jax plan --config tiny --topology cpu",
    )
    c.add_argument(
        "--config", required=True, metavar="NAME|FILE.py[:ARG]", help="recipe, as for pretrain"
    )
    c.add_argument(
        "--topology",
        required=True,
        action="append",
        metavar="NAME",
        help="v4, v5e, v5p or v6e with the chips of each side (v5e:4x4) or as the cloud counts them (v5e-16); "
        "cpu: this machine, with a few real steps beside the plan; as often as needed",
    )
    c.add_argument(
        "--seq-len",
        type=_at_least(8),
        metavar="N",
        help="tokens a row (default: as the command in the config's first lines prepares them)",
    )
    c.add_argument(
        "--vocab-size", type=_at_least(6), default=30522, metavar="N", help="(default: 30522)"
    )
    c.add_argument(
        "--compiles",
        type=_at_least(1),
        default=4,
        metavar="N",
        help="at most this many compilations a topology, up to 4: the config's, and what advice needs (default: 4)",
    )
    c.add_argument("--json", action="store_true", help="one JSON object a line and topology")
    c.add_argument(
        "--config.SECTION.KEY",
        metavar="VALUE",
        dest="overrides",
        help="set one value of the config; --config.data.path takes vocabulary and length from prepared data",
    )

    c = command(
        "evaluate",
        "measure a run on held-out rows",
        "electra-jax evaluate --workdir run/ --step 1000",
    )
    c.add_argument("--workdir", required=True, help="folder of the run")
    c.add_argument("--step", type=_at_least(0), help="checkpoint (default: the newest)")
    c.add_argument("--data", help="prepared data (default: that of the run)")

    c = command(
        "export",
        "write Hugging Face folders of a run's discriminator and generator, or of a fine-tuned model",
        "electra-jax export --workdir run/ --output hf/",
    )
    c.add_argument("--workdir", required=True, help="folder of the run")
    c.add_argument("--output", required=True, help="new folder")
    c.add_argument("--step", type=_at_least(0), help="checkpoint (default: the newest)")
    c.add_argument(
        "--run", help="of a fine-tuned workdir, such as seed0 (default: the best on dev)"
    )
    c.add_argument("--task", help="of a fine-tuned workdir with several tasks")

    c = command(
        "import",
        "make a workdir of Hugging Face folders, to go on from",
        "electra-jax import --discriminator hf/discriminator --generator hf/generator --workdir run2/",
    )
    c.add_argument("--discriminator", help="Hugging Face folder")
    c.add_argument(
        "--generator",
        help="Hugging Face folder (default: a fresh generator); alone, a model for the MLM objective",
    )
    c.add_argument("--workdir", required=True, help="new folder of the run")
    c.add_argument(
        "--embeddings",
        choices=("discriminator", "average"),
        help="which to take when the two folders' embeddings differ (default: refuse)",
    )

    c = command(
        "bench",
        "measure the train step of a config: time, tokens and useful FLOPs per second, memory",
        "electra-jax bench --config base --seq-len 512 --batch 64\n"
        "  electra-jax bench --config small --data data/ --config.model.attention_dropout=0",
    )
    c.add_argument("--config", required=True, metavar="NAME|FILE.py[:ARG]", help="recipe")
    c.add_argument(
        "--seq-len", type=_at_least(8), metavar="N", help="tokens a row (default: model.positions)"
    )
    c.add_argument(
        "--batch", type=_at_least(1), metavar="N", help="rows (default: the recipe's batch)"
    )
    c.add_argument("--data", help="prepared data (default: synthetic rows)")
    c.add_argument(
        "--rounds", type=_at_least(1), default=10, metavar="N", help="measurements (default: 10)"
    )
    c.add_argument("--json", action="store_true", help="print JSON")
    c.add_argument(
        "--config.SECTION.KEY",
        metavar="VALUE",
        dest="overrides",
        help="set one value of the config",
    )

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

    finetune_flags.add(command, _at_least(1))

    c = command(
        "quickstart",
        "see the whole path in three minutes, on text that every Python carries",
        "electra-jax quickstart --workdir quickstart/",
    )
    c.add_argument("--workdir", default="quickstart", help="new folder (default: quickstart)")
    c.add_argument("--input", nargs="+", metavar="GLOB", help="your own text instead")
    return parser, dict(commands.choices)


def _text_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="GLOB",
        help=".txt (a paragraph a line, a blank line between documents), .jsonl, .parquet, "
        "each also .gz .zst .bz2; or tfds:NAME",
    )
    command.add_argument(
        "--text-key", default="text", help="field of .jsonl and .parquet (default: text)"
    )


def _case_flags(command: argparse.ArgumentParser, lowercase: bool | None) -> None:
    note = "" if lowercase else " (default: as the tokenizer says)"
    command.add_argument(
        "--no-lowercase",
        dest="lowercase",
        action="store_const",
        const=False,
        default=lowercase,
        help=f"keep upper case, and accents with it{note}",
    )
    command.add_argument(
        "--keep-accents",
        dest="strip_accents",
        action="store_const",
        const=False,
        help=f"keep accents in lower case, too{note}",
    )
