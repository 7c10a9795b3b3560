"""The flags of the commands around a pretraining run: pretrain, plan, bench, evaluate, doctor, export, import, ..."""

import argparse

from electra_jax.cli.grammar import Command, at_least


def pretrain(command: Command) -> None:
    """Adds `pretrain`."""
    c = command(
        "pretrain",
        "pretrain a model, or resume a run that was stopped",
        "electra-jax pretrain --config small --workdir run/ --config.data.path=data/\n"
        "  electra-jax pretrain --workdir run/         (goes on where it stopped)\n"
        "  electra-jax pretrain --list                 (the recipes)\n"
        "  electra-jax pretrain --config small --list  (what --config.SECTION.KEY=VALUE may set)",
    )
    c.add_argument(
        "--config",
        metavar="NAME|FILE.py[:ARG]",
        nargs="?",
        const="",
        help="recipe: a shipped name (see --list) or a file; leave it out to resume",
    )
    c.add_argument("--workdir", help="folder of the run")
    c.add_argument(
        "--from",
        dest="origin",
        metavar="WORKDIR",
        help="begin a new workdir as this run was after a checkpoint, with its config, and go on by itself",
    )
    c.add_argument(
        "--step", type=at_least(0), help="checkpoint of --from to begin with (default: the newest)"
    )
    c.add_argument(
        "--list",
        action="store_true",
        help="list the recipes; with --config, every key of one with its type, value and meaning",
    )
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
    several_processes(c)


def several_processes(c: argparse.ArgumentParser) -> None:
    """Adds the flags of a training in several processes."""
    several = c.add_argument_group(
        "several processes",
        "Under Slurm, Open MPI and on TPU slices they find each other; elsewhere start the same command in "
        "each with these flags, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. "
        "All need the same workdir, on a file system they share.",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="a free port of process 0")
    several.add_argument("--processes", type=at_least(1), metavar="N", help="how many there are")
    several.add_argument("--process", type=at_least(0), metavar="I", help="this one's number")
    several.add_argument(
        "--join-timeout",
        type=at_least(1),
        default=300,
        metavar="S",
        help="seconds to wait until all are there (default: 300)",
    )


def _money(c: argparse.ArgumentParser) -> None:
    c.add_argument(
        "--price", metavar="FILE", help="prices of a chip-hour (default: the table in the package)"
    )
    c.add_argument(
        "--budget",
        metavar="MONEY",
        help="choose the fastest machine on which the whole run costs no more, such as 500 in the prices' currency",
    )
    c.add_argument(
        "--deadline",
        metavar="TIME",
        help="choose the cheapest machine on which the whole run takes no longer, such as 24h, 90m or 2d",
    )
    c.add_argument("--spot", action="store_true", help="choose by the prices of spot machines")
    c.add_argument(
        "--plot", metavar="FILE.png", help="draw time against money, a point a topology and price"
    )


def plan(command: Command) -> None:
    """Adds `plan`."""
    c = command(
        "plan",
        "weigh a run before the machine is rented: compile its step for a TPU or GPU that is not there",
        "electra-jax plan --config base --topology v5e:4x4 --topology v6e-8 --topology h100-8\n"
        "  electra-jax plan --config base --budget 500 --spot --plot compare.png\n"
        "  electra-jax plan --config tiny --topology cpu",
    )
    c.add_argument(
        "--config", required=True, metavar="NAME|FILE.py[:ARG]", help="recipe, as for pretrain"
    )
    c.add_argument(
        "--topology",
        action="append",
        default=[],
        metavar="NAME",
        help="v4, v5e, v5p, v6e or tpu7x with the chips of each side (v5e:4x4) or as the cloud counts them (v5e-16); "
        "h100-8 or h200-8: GPUs; cpu: this machine, with a few real steps beside the plan; as often as needed "
        "(default, with --budget or --deadline: some of each)",
    )
    _money(c)
    c.add_argument(
        "--seq-len",
        type=at_least(8),
        metavar="N",
        help="tokens a row (default: as the command in the config's first lines prepares them)",
    )
    c.add_argument(
        "--vocab-size", type=at_least(6), default=30522, metavar="N", help="(default: 30522)"
    )
    c.add_argument(
        "--compiles",
        type=at_least(1),
        metavar="N",
        help="at most this many compilations a topology, up to 4: the config's, and what advice needs (default: 4; "
        "1 with --budget or --deadline)",
    )
    c.add_argument("--json", action="store_true", help="one JSON object a line and topology")
    c.add_argument(
        "--config.SECTION.KEY",
        metavar="VALUE",
        dest="overrides",
        help="set one value of the config; --config.data.path takes vocabulary and length from prepared data",
    )


def bench(command: Command) -> None:
    """Adds `bench`."""
    c = command(
        "bench",
        "measure the train step of a config: time, tokens and useful FLOPs per second, memory",
        "electra-jax bench --config base --seq-len 512 --batch 64\n"
        "  electra-jax bench --config small --data data/ --config.model.attention_dropout=0",
    )
    c.add_argument("--config", required=True, metavar="NAME|FILE.py[:ARG]", help="recipe")
    c.add_argument(
        "--seq-len", type=at_least(8), metavar="N", help="tokens a row (default: model.positions)"
    )
    c.add_argument(
        "--batch", type=at_least(1), metavar="N", help="rows (default: the recipe's batch)"
    )
    c.add_argument("--data", help="prepared data (default: synthetic rows)")
    c.add_argument(
        "--rounds", type=at_least(1), default=10, metavar="N", help="measurements (default: 10)"
    )
    c.add_argument("--json", action="store_true", help="print JSON")
    c.add_argument(
        "--config.SECTION.KEY",
        metavar="VALUE",
        dest="overrides",
        help="set one value of the config",
    )


_AVERAGE = "the average of the weights that train.average keeps, in place of the weights"


def evaluate(command: Command) -> None:
    """Adds `evaluate`."""
    c = command(
        "evaluate",
        "measure a run on held-out rows",
        "electra-jax evaluate --workdir run/ --step 1000",
    )
    c.add_argument("--workdir", required=True, help="folder of the run")
    c.add_argument("--step", type=at_least(0), help="checkpoint (default: the newest)")
    c.add_argument("--average", action="store_true", help=_AVERAGE)
    c.add_argument("--data", help="prepared data (default: that of the run)")


def doctor(command: Command) -> None:
    """Adds `doctor`."""
    c = command(
        "doctor",
        "say whether a run is learning, from its log: signs, figures, the setting to change",
        "electra-jax doctor run/\n"
        "  electra-jax doctor run/ --json\n\n"
        "exit status: 0 learning, or too early to say; 1 not learning; 2 no run that can be read",
    )
    c.add_argument("workdir", metavar="WORKDIR", help="folder of the run, trained or training")
    c.add_argument("--json", action="store_true", help="print JSON")


def export(command: Command) -> None:
    """Adds `export`."""
    c = command(
        "export",
        "write Hugging Face folders of a run's discriminator and generator, or of a fine-tuned model",
        "electra-jax export --workdir run/ --output hf/",
    )
    c.add_argument("--workdir", required=True, help="folder of the run")
    c.add_argument("--output", required=True, help="new folder")
    c.add_argument("--step", type=at_least(0), help="checkpoint (default: the newest)")
    c.add_argument("--average", action="store_true", help=_AVERAGE)
    c.add_argument(
        "--run", help="of a fine-tuned workdir, such as seed0 (default: the best on dev)"
    )
    c.add_argument("--task", help="of a fine-tuned workdir with several tasks")
    c.add_argument(
        "--language",
        metavar="CODE,CODE",
        help="for the model card, such as de (default: that of the held-out text, if its script tells)",
    )
    c.add_argument("--license", metavar="ID", help="for the model card, such as apache-2.0")


def import_(command: Command) -> None:
    """Adds `import`."""
    c = command(
        "import",
        "make a workdir of a trained model in any format, to go on from",
        "electra-jax import --discriminator hf/discriminator --generator hf/generator --workdir run2/\n"
        "  electra-jax import --discriminator original-tf1/ --workdir run2/\n"
        "  electra-jax import --discriminator hf/discriminator --tokenizer tok/ --layers 6 --workdir run2/",
    )
    c.add_argument(
        "--discriminator",
        help="folder of a model: Hugging Face's, in any format, or a checkpoint of the original (docs/formats.md)",
    )
    c.add_argument(
        "--generator",
        help="the same (default: that of the same checkpoint, else a fresh one); alone, a model for the MLM objective",
    )
    c.add_argument("--workdir", required=True, help="new folder of the run")
    c.add_argument(
        "--embeddings",
        choices=("discriminator", "average", "gdes"),
        help="which to take when the two folders' embeddings differ (default: refuse)",
    )
    c.add_argument(
        "--tokenizer",
        default="",
        metavar="FOLDER",
        help="another vocabulary: rows of tokens that both have are kept, others begin as the mean of their old pieces",
    )
    c.add_argument(
        "--positions",
        type=at_least(1),
        default=0,
        metavar="N",
        help="longest row (default: as it is)",
    )
    c.add_argument(
        "--layers",
        default="",
        metavar="N|first:N",
        help="keep N evenly spaced layers of the discriminator, or the first N",
    )


def quickstart(command: Command) -> None:
    """Adds `quickstart`."""
    c = command(
        "quickstart",
        "see the whole path in three minutes, on text that every Python carries",
        "electra-jax quickstart --workdir quickstart/",
    )
    c.add_argument("--workdir", default="quickstart", help="new folder (default: quickstart)")
    c.add_argument("--input", nargs="+", metavar="GLOB", help="your own text instead")
