"""`electra-jax predict`: a fine-tuned workdir on new data."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_jax import files, remote
from electra_jax.finetune import forward, order, own, plan, record
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import options
from electra_jax.finetune.program import Notice, Program, StepSpec
from electra_jax.finetune.record import Record
from electra_jax.finetune.rows import Found, Split
from electra_jax.finetune.scores import majority, scoring
from electra_jax.learn import arrays
from electra_jax.learn import mesh as meshes
from electra_jax.learn import program as programs
from electra_jax.spec import UserError
from electra_jax.tasks import task as tasks
from electra_jax.tasks.task import Task
from electra_jax.text import tokenizer as tokenizers
from electra_jax.workdir import away

SPLIT = "predict"  # a split of this name need not have labels


def predict(
    workdir: str | Path,
    path: str,
    output: str | Path,
    task: str | None = None,
    run: str | None = None,
    ensemble: bool = False,
    probabilities: bool = False,
) -> dict[str, Any] | None:
    """Writes the predictions for the file `path`; returns their scores where it has labels.

    By the run with the best dev score, by `run`, or by the mean of all finished runs; with
    `probabilities` as `scoring.write_file` writes them. The scores have those of always giving one
    answer with them, "majority". Raises UserError for data that do not read like the task's, and
    for an output that exists.
    """
    with (
        remote.output(output) as place,
        away.opened(workdir, write=False) as home,
        remote.inputs(path) as (local,),
    ):
        return _predict(home.folder, local, place, task, run, ensemble, probabilities)


def _predict(
    workdir: Path,
    path: str,
    output: str,
    task: str | None,
    run: str | None,
    ensemble: bool,
    probabilities: bool,
) -> dict[str, Any] | None:
    files.refuse_existing(output)
    found = record.read(workdir)
    name, own_tasks = found.task(task), own.register(workdir, found.tasks)
    made = options(found.config)
    asked = made.data
    labels = found.labels[name]
    entry = task_of(own_tasks.get(name) or plan.choose(name, asked), labels)
    if probabilities:
        kinds.get(entry.kind).check_probabilities(entry, output)
    scored = _with_range(entry, found.score_range[name])
    words = tokenizers.load(workdir / "tokenizer")
    examples = entry.read(path, SPLIT, asked.carry_on)
    split = plan.encode(scored, labels, examples, path, words, found.max_len[name], asked)
    runs = _runs(workdir, found, run, ensemble)
    programs.use_compilation_cache()
    heads = tuple((task, found.head(task)) for task in found.heads)
    spec = StepSpec(
        network=NetworkSpec(dims=found.dims, heads=heads),
        optim=made.optim,
        layer_decay=1.0,
        reduction="mean",
        steps=1,
    )
    program = Program(spec, meshes.build(meshes.MeshSpec(-1, 1)), notice=Notice())
    batch = -(-made.eval.batch // program.mesh.size) * program.mesh.size
    price = order.PREDICTION_PRICE / len(runs)
    buckets = order.bucket_lengths(
        split.rows.lengths, made.train.buckets, found.max_len[name], price
    )
    said = [
        forward.predict(program, program.params(tree), name, split.rows, buckets, batch)[0]
        for tree in (arrays.nest(record.read_params(workdir, r)) for r in runs)
    ]
    files.make_folder(Path(output).parent)
    data = scoring.Scored(scored, labels, dict(heads)[name])
    scores = _write(data, split, said, output, probabilities)
    one = found.majority.get(name)  # absent from workdirs of earlier versions
    if scores is None or one is None:
        return scores
    return scores | {majority.NAME: majority.scores(entry, one["answer"], split.examples)}


def _write(
    data: "scoring.Scored",
    split: Split,
    said: list[Found],
    output: str | Path,
    probabilities: bool,
) -> dict[str, Any] | None:
    together = said[0] if len(said) == 1 else forward.mean(said)
    if together is None:
        raise UserError("the original's joint question answering has no ensemble; give --run")
    scoring.write_file(data, split, together, output, probabilities)
    return scoring.scores(data, split, together) if split.labelled else None


def task_of(task: Task, labels: tuple[str, ...]) -> Task:
    """The task with the classes that it was trained on: what reads its test file."""
    return tasks.with_labels(task, labels) if labels else task


def _with_range(task: Task, bounds: Sequence[float] | None) -> Task:
    """The task with the range of the scores that it was trained on, in which predictions are."""
    if bounds is None:
        return task
    low, high = bounds
    return dataclasses.replace(task, score_range=(low, high))


def _runs(workdir: str | Path, found: Record, run: str | None, ensemble: bool) -> list[str]:
    names = [r.name for r in found.runs]
    if run is not None:
        if run not in names:
            raise UserError(f"{workdir} has no run {run!r}; it has {', '.join(names)}")
        return [run]
    if ensemble:
        return [name for name in names if record.done(workdir, name) is not None]
    return [record.best_params(workdir, found)[0]]
