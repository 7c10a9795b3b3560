"""What each command does with its flags."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence

from electra_jax.cli import finetune_flags, flags, leaving

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE
COMPUTING = {"pretrain", "evaluate", "bench", "finetune", "predict", "quickstart", "score-text"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 (doctor), 2 (a mistake), 75 (SIGTERM, saved), 130, 141, 143."""
    try:
        try:
            options = flags.parse(sys.argv[1:] if argv is None else argv)
            return _run(options)
        finally:
            sys.stdout.flush()
    except leaving.Told as told:
        print(told, file=sys.stderr)
        if argv is None:
            leaving.end_beside_threads(told.status)
        return told.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter's flush at exit must not say so again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(options: argparse.Namespace) -> int:
    from electra_jax.cli import limits
    from electra_jax.spec import UserError

    try:
        if options.command in COMPUTING | {"export", "import", "plan"}:
            limits.check_memory()
        if options.command in COMPUTING:
            from electra_jax.host import heap

            heap.keep_freed_memory()
        with leaving.heard(options.command):
            return _COMMANDS[options.command](options) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except Exception as error:
        said = limits.explained(error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
    return flags.USAGE


def _vocab(options: argparse.Namespace) -> None:
    from electra_jax import remote
    from electra_jax.spec import UserError
    from electra_jax.text import mecab, vocab
    from electra_jax.text.sources import buckets

    segmenter, dictionary = None, options.dictionary
    if options.segmenter:
        segmenter = mecab.Segmenter(dictionary=dictionary or mecab.DEFAULT)
    elif dictionary:
        raise UserError(
            f"--dictionary {dictionary} is for --segmenter mecab; give both, or leave it out"
        )
    with remote.output(options.output) as folder, buckets.copied(options.input) as (inputs,):
        vocab.train(
            inputs,
            options.kind,
            options.size,
            folder,
            lowercase=options.lowercase,
            accents=options.accents,
            sample_bytes=options.sample_bytes,
            text_key=options.text_key,
            language=options.language,
            max_word=options.max_word,
            segmenter=segmenter,
        )
    print(f"wrote {options.output}: {options.kind}, {options.size:,} tokens")


def _inputs(
    options: argparse.Namespace, engine: object
) -> contextlib.AbstractContextManager[tuple[list[str], ...]]:
    """The inputs of `prepare` on this machine; an engine's workers read buckets themselves."""
    from electra_jax.text.sources import buckets

    lists = (options.input, options.valid_input or [])
    return buckets.copied(*lists) if engine is None else contextlib.nullcontext(lists)


def _prepare(options: argparse.Namespace) -> None:
    from electra_jax import remote
    from electra_jax.data import source
    from electra_jax.data.prepare import build
    from electra_jax.spec import UserError

    engine = None
    if options.runner == "beam":
        from electra_jax.data.prepare import beam

        if options.workers is not None:
            print(
                "note: --workers says nothing to --runner beam; for processes of this machine give "
                f"--beam-options='--direct_num_workers={options.workers}'",
                file=sys.stderr,
            )
        engine = beam.engine(options.beam_options)
    elif options.beam_options:
        raise UserError("--beam-options are for --runner beam; give both, or leave them out")
    with (
        remote.output(options.output) as folder,
        remote.inputs(options.tokenizer) as (tokenizer,),
        _inputs(options, engine) as (inputs, valid_inputs),
    ):
        build.prepare(
            inputs,
            tokenizer,
            options.seq_len,
            folder,
            segments=options.segments,
            overflow=options.overflow,
            valid_inputs=valid_inputs or None,
            valid_fraction=options.valid_fraction,
            text_key=options.text_key,
            seed=options.seed,
            workers=options.workers,
            lowercase=options.lowercase,
            strip_accents=options.strip_accents,
            language=options.language,
            max_word=options.max_word,
            segmenter=options.segmenter,
            dedup=options.dedup,
            engine=engine,
            pack=options.pack,
            join_lines=options.join_lines,
        )
        made = source.open_prepared(folder)
    rows = f"{made.rows['train']:,} rows to train on and {made.rows['valid']:,} held out"
    share = made.info["counts"]["train"]["real_token_share"]
    print(f"wrote {options.output}: {rows}, {made.seq_len} tokens each, {share:.1%} of them text")
    if options.dedup is not None:
        copies = sum(counts["duplicates"] for counts in made.info["counts"].values())
        print(f"left out {copies:,} documents that copy earlier ones")


def _pretrain(options: argparse.Namespace) -> int:
    from electra_jax.cli import recipes
    from electra_jax.spec import UserError, overridden

    if options.list:
        _print_recipes(options)
        return 0
    # Checked before the training code is imported, which takes seconds.
    config = None
    if options.config is not None:
        config = recipes.load(options.config, (), "pretrain", options.overrides)
        overridden(config, options.overrides)
    if options.workdir is None:
        raise UserError("no --workdir: the folder of the run, a new one or the one to go on with")

    def train() -> bool:
        from electra_jax.pretrain import loop

        origin = (options.origin, options.step)
        return loop.pretrain(
            config, options.workdir, options.overrides, options.allow_change, origin
        )

    return _trained(options, train)


def _trained(options: argparse.Namespace, train: Callable[[], bool]) -> int:
    """The exit status of a training in this process, alone or one of several; SIGTERM ends it saved."""
    from electra_jax.host import preempt

    with preempt.listening():
        from electra_jax.host import processes

        how = processes.plan(options.coordinator, options.processes, options.process)
        if how is not None and preempt.told():
            return preempt.status()  # from here on the processes have to agree
        with processes.joined(how, options.join_timeout):
            ended = train()
    return 0 if ended else preempt.status()


def _print_recipes(options: argparse.Namespace) -> None:
    from electra_jax.cli import recipes

    if options.config is None:
        print(f"recipes, each with --config NAME:\n{recipes.listed('pretrain')}")
        print("every key of one: electra-jax pretrain --config NAME --list")
    else:
        print(recipes.described(options.config, options.overrides, "pretrain"))


def _plan(options: argparse.Namespace) -> None:
    from electra_jax.cli import recipes

    config = recipes.load(options.config, options.overrides, "pretrain")
    from electra_jax.plan import command

    command.plan(
        options.config,
        config,
        options.topology,
        seq_len=options.seq_len,
        vocab_size=options.vocab_size,
        compiles=options.compiles,
        as_json=options.json,
        money=command.money(
            options.price, options.plot, options.budget, options.deadline, options.spot
        ),
        overrides=options.overrides,
    )


def _evaluate(options: argparse.Namespace) -> None:
    from electra_jax.pretrain import evaluate

    values = evaluate.evaluate_workdir(
        options.workdir, step=options.step, data=options.data, average=options.average
    )
    print(json.dumps(values, indent=2))


def _doctor(options: argparse.Namespace) -> int:
    from electra_jax.doctor import command

    text, status = command.doctor(options.workdir, options.json)
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        text = text.encode(
            "ascii", "replace"
        ).decode()  # a terminal that has no bars for the curves
    print(text)
    return status


def _export(options: argparse.Namespace) -> None:
    from electra_jax.convert.card import About
    from electra_jax.finetune import record
    from electra_jax.spec import UserError

    about = About.of(options.language, options.license)
    if record.is_workdir(options.workdir):
        from electra_jax.finetune import export

        if options.step is not None:
            raise UserError(f"{options.workdir} is fine-tuned and has no --step; choose with --run")
        if options.average:
            raise UserError(f"{options.workdir} is fine-tuned and has no --average")
        name = export.export(options.workdir, options.output, options.run, options.task, about)
        print(f"wrote {options.output}: {name}")
        return
    if options.run is not None or options.task is not None:
        raise UserError(
            f"{options.workdir} is not fine-tuned; --run and --task are for those that are"
        )
    from electra_jax.convert import hf

    written = hf.export(
        options.workdir, options.output, step=options.step, about=about, average=options.average
    )
    print(f"wrote {', '.join(os.path.join(options.output, name) for name in written)}")


def _import(options: argparse.Namespace) -> None:
    from electra_jax.convert import hf

    hf.import_(
        options.discriminator,
        options.generator,
        options.workdir,
        embeddings=options.embeddings,
        vocabulary=options.tokenizer,
        positions=options.positions,
        layers=options.layers,
    )
    print(
        f"wrote {options.workdir}; go on with: electra-jax pretrain --config NAME --workdir {options.workdir} ..."
    )


def _bench(options: argparse.Namespace) -> None:
    from electra_jax.cli import recipes

    config = recipes.load(options.config, options.overrides, "pretrain")
    from electra_jax.bench import command, step

    figures = command.run(config, options.seq_len, options.batch, options.data, options.rounds)
    print(json.dumps(figures, indent=2) if options.json else step.table(figures))


def _finetune(options: argparse.Namespace) -> int:
    from electra_jax.finetune import options as asked

    flagged = finetune_flags.overrides(options)
    config = None if options.config is None else asked.recipe(options.config, flagged)

    def train() -> bool:
        from electra_jax import remote
        from electra_jax.finetune import command
        from electra_jax.host import processes

        ended = command.finetune(config, options.workdir, flagged if config is None else ())
        if ended is not None and processes.is_first():
            results = os.path.join(options.workdir, "results.md")
            with remote.inputs(results) as (table,), open(table, encoding="utf-8") as content:
                print(content.read(), end="")
        return ended is not None

    return _trained(options, train)


def _predict(options: argparse.Namespace) -> None:
    from electra_jax.finetune import predict

    scores = predict.predict(
        options.workdir,
        options.input,
        options.output,
        task=options.task,
        run=options.run,
        ensemble=options.ensemble,
        probabilities=options.probabilities,
    )
    print(f"wrote {options.output}")
    if scores:
        print(json.dumps(scores, indent=2))


def _quickstart(options: argparse.Namespace) -> None:
    from electra_jax import quickstart

    quickstart.run(options.workdir, options.input)


def _score(options: argparse.Namespace) -> None:
    from electra_jax import remote
    from electra_jax.finetune.scores import score

    said = {"text": options.text, "label": options.label, "id": options.id}
    given = (options.references, options.predictions, options.null_odds or "")
    with remote.inputs(*given) as (references, predictions, null_odds):
        values = score.score(
            options.task,
            references,
            predictions,
            null_odds=null_odds or None,
            null_threshold=options.null_threshold,
            columns={name: value for name, value in said.items() if value is not None},
        )
    print(json.dumps(values, indent=2, ensure_ascii=False))


def _score_text(options: argparse.Namespace) -> None:
    from electra_jax.scoring import command

    names = ("head", "word_l2r", "windows", "tokens", "as_json", "step", "average")
    chosen = {name: getattr(options, name) for name in names}
    command.run(
        options.model, given=options.text, file=options.input, pairs_file=options.pairs, **chosen
    )


_COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "vocab": _vocab,
    "prepare": _prepare,
    "pretrain": _pretrain,
    "plan": _plan,
    "evaluate": _evaluate,
    "doctor": _doctor,
    "export": _export,
    "import": _import,
    "bench": _bench,
    "score": _score,
    "score-text": _score_text,
    "finetune": _finetune,
    "predict": _predict,
    "quickstart": _quickstart,
}
