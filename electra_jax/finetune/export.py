"""A fine-tuned workdir as a Hugging Face folder that transformers loads as the class of its task."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax import files, remote, userfile
from electra_jax.convert import config as configs
from electra_jax.convert import folder as hf_folder
from electra_jax.convert import made_by, names, pair
from electra_jax.convert.card import About
from electra_jax.finetune import own, record
from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.record import Record
from electra_jax.model.options import MODERN
from electra_jax.spec import UserError, load_config
from electra_jax.tasks.metrics import is_score
from electra_jax.text import tokenizer as tokenizers
from electra_jax.workdir import away


def export(
    workdir: str | Path,
    output: str | Path,
    run: str | None = None,
    task: str | None = None,
    about: About | None = None,
) -> str:
    """Writes the folder of one run, by default the one with the best dev score; returns its class.

    With several tasks `task` says whose head goes along. Logits are the run's own; a regression's
    are in the range of its labels. `about` is for the model card. Raises UserError for heads that transformers does
    not have.
    """
    with remote.output(output) as place, away.opened(workdir, write=False) as home:
        return _export(home.folder, place, run, task, about or About())


def _export(workdir: Path, output: str, run: str | None, task: str | None, about: About) -> str:
    files.refuse_existing(output)
    found = record.read(workdir)
    own.register(workdir, found.tasks)
    task = found.task(task)
    head = found.head(task)
    kind = kinds.get(head.kind)
    family = found.dims.spec.family
    hf_class, styles = kind.leaves_as(family), ("hf",) if family == MODERN else kind.styles
    if not hf_class:
        raise UserError(
            f"{workdir}: transformers has no class for tasks of the kind {kind.name} on model.family={family}"
        )
    if head.style not in styles:
        raise UserError(
            f"{workdir} was trained with head.style={head.style!r}, and transformers has no such "
            f"head for {head.kind}; fine-tune with --config.head.style=hf to export"
        )
    name, params = (
        record.best_params(workdir, found)
        if run is None
        else (run, record.read_params(workdir, run))
    )
    dims = found.dims
    shape = pair.shape_of(dims, dims.discriminator)
    ours = f"heads_{task}"
    table = [*names.encoder_only(shape), *kind.table(shape, head.outputs, ours)]
    kept = {
        path: x for path, x in params.items() if not path.startswith("heads_") or _of(path, ours)
    }
    kept = dict(kind.exported(kept, ours, found.score_range[task]))
    (tensors,) = names.export(
        kept, [table], dims.padded_rows, f"the parameters of {workdir}, run {name}"
    )
    words = tokenizers.load(workdir / "tokenizer")
    spec = dims.spec
    with files.new_folder(output) as temporary:
        config = configs.of(shape, pair.options_of(spec), hf_class, words.special)
        config |= {"classifier_dropout": head.dropout, **kind.config(head, found.labels[task])}
        files.write_json(temporary / configs.CONFIG, config)
        hf_folder.write_tensors(temporary / hf_folder.WEIGHTS, tensors, {"format": "pt"})
        words.save(temporary, max_length=found.max_len[task], types=spec.has_types)
        result = record.done(workdir, name) or {}
        files.write_text(temporary / "README.md", _card(found, task, head, name, result, about))
    return hf_class


def _of(path: str, head: str) -> bool:
    return path.startswith(head + "/")


def _card(
    found: Record,
    task: str,
    head: HeadSpec,
    run: str,
    result: Mapping[str, Any],
    about: About,
) -> str:
    """README.md: what was trained on what, how it scored, and the command that made it."""
    hf_class = kinds.get(head.kind).leaves_as(found.dims.spec.family)
    rows = [
        f"| {split} | {metric} | {value:.2f} |"
        for split, values in result.get("scores", {}).get(task, {}).items()
        for metric, value in values.items()
        if is_score(metric, value)
    ]
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {kinds.get(head.kind).pipeline}",
        "tags:",
        "- electra",
        "- electra_jax",
        *about.matter(),
        "---",
        "",
        f"# ELECTRA fine-tuned on {task}",
        "",
        f"`{hf_class}`, fine-tuned with electra_jax on {found.examples[task]:,} rows, "
        f"from {found.init.get('name', 'a random encoder')} ({found.init['kind']}); run {run}, "
        f"learning rate {result.get('peak_lr', float('nan')):g}, {found.steps:,} steps.",
        "",
        "| split | metric | value |",
        "| --- | --- | --- |",
        *rows,
        "",
        "## Made by",
        "",
        "```",
        _command(found.config),
        "```",
        "",
    ]
    return "\n".join(lines)


def _command(config: Mapping[str, Any]) -> str:
    """`electra-jax finetune` with all that differs from the recipe's values; folders are left out."""
    tasks = [os.path.basename(t) if userfile.is_file(t) else t for t in config["tasks"]]
    recipe = f"finetune:{','.join(tasks)}"
    usual = load_config(recipe).to_dict()
    left_out = ("init", "tasks", "mesh.", "train.log_every", "train.checkpoint_every")
    init = os.path.basename(config["init"].rstrip("/"))
    words = ["--config", recipe, "--init", init, "--workdir", "ft"]
    words += made_by.overrides(usual, config, left_out)
    return shlex.join(["electra-jax", "finetune", *words])
