"""Hugging Face, both ways: a workdir becomes model folders, model folders become a workdir."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from electra_jax import files, remote
from electra_jax.convert import exportable, folder, grow, names, pair
from electra_jax.convert.card import About, card
from electra_jax.convert.entries import Entry, Shape
from electra_jax.convert.exportable import Exportable
from electra_jax.convert.folder import Model
from electra_jax.convert.formats import tf1_names
from electra_jax.convert.formats.tensors import Tensors
from electra_jax.model.electra import Dimensions
from electra_jax.model.options import MODERN
from electra_jax.objective import registry
from electra_jax.objective.export import DETECTION, ENCODER, MASKED_LM, Export
from electra_jax.spec import UserError, check_choice
from electra_jax.text import tokenizer as tokenizers
from electra_jax.workdir import away, imported


def export(
    workdir: str | Path,
    output: str | Path,
    step: int | None = None,
    about: About | None = None,
    average: bool = False,
) -> list[str]:
    """Writes the models of a workdir as folders that Hugging Face loads; returns their names.

    The objective says which: a discriminator and a generator, one masked LM, an encoder alone. Each holds
    model.safetensors, config.json, tokenizer files and a model card. `step` is a checkpoint's, the newest when None;
    with `average` its average of the weights leaves; `about` is for the card, which finds the language itself where the
    script of the held-out text tells it.
    """
    with remote.output(output) as place, away.opened(workdir, write=False) as home:
        return _export(home.folder, place, step, str(workdir), about or About(), average)


def _export(
    workdir: Path, output: str, step: int | None, name: str, about: About, average: bool
) -> list[str]:
    files.refuse_existing(output)
    found = exportable.read(workdir, step, average)
    stated = About(about.languages or found.facts.about.languages, about.license)
    facts = replace(found.facts, about=stated)
    leaving = models(found, name)
    tokenizer = tokenizers.load(found.tokenizer)
    spec = found.dims.spec
    with files.new_folder(output) as temporary:
        written = []
        for model, shape, values in leaving:
            if not model.trained:
                continue
            path = temporary / model.name
            path.mkdir()
            notes = ({"tying": model.tying} if model.tying else {}) | (
                {"energy": True} if model.energy else {}
            )
            options = pair.options_of(spec, notes or None)
            folder.write(path, shape, options, model.hf_class, tokenizer.special, values)
            tokenizer.save(path, max_length=shape.positions, types=spec.has_types)
            parameters = sum(value.size for value in values.values())
            files.write_text(path / "README.md", card(model, shape, parameters, facts))
            written.append(model.name)
    if found.note:
        print(found.note, file=sys.stderr)
    return written


def models(
    found: Exportable, name: str, say: bool = True
) -> list[tuple[Export, Shape, dict[str, np.ndarray]]]:
    """The models of a workdir of this name: each with its numbers and its tensors by their names.

    `say` on stderr which parameters stay behind.
    """
    exports, shapes = found.exports, [pair.shape_of(found.dims, e.spec) for e in found.exports]
    tables = [names.table(*one) for one in zip(exports, shapes, strict=True)]
    params = _named(found.params, exports, tables, say)
    what = f"the parameters in {name}"
    tensors = names.export(params, tables, found.dims.padded_rows, what)
    return list(zip(exports, shapes, tensors, strict=True))


def import_(
    discriminator: str | Path | None,
    generator: str | Path | None = None,
    workdir: str | Path = "",
    embeddings: str | None = None,
    *,
    vocabulary: str = "",
    positions: int = 0,
    layers: str = "",
) -> None:
    """Writes the workdir that holds the models of these folders, for training or export.

    Without a generator a fresh one is made, and said on stderr; without a discriminator the generator
    is taken for a masked LM that is the whole model. `embeddings` ("discriminator", "average" or "gdes") settles
    a pair whose embeddings differ. `vocabulary` (another tokenizer), `positions` and `layers` ("6", "first:6") change
    the model as grow.py says. Raises UserError for everything that does not fit, and leaves nothing.
    """
    if embeddings is not None:
        check_choice("--embeddings", embeddings, pair.KEPT)
    if discriminator is None and generator is None:
        raise UserError("nothing to import: give a discriminator, a generator or both")
    with (
        remote.output(workdir) as place,
        remote.inputs(discriminator or "", generator or "", vocabulary) as (first, second, words),
    ):
        count, is_first = grow.layers_of(layers) if layers else (0, False)
        change = grow.Change(
            tokenizer=tokenizers.load(words) if words else None,
            positions=positions,
            layers=count,
            first=is_first,
        )
        _import(first or None, second or None, place, embeddings, change)


def _import(
    discriminator: str | None,
    generator: str | None,
    workdir: str,
    embeddings: str | None,
    change: grow.Change,
) -> None:
    files.refuse_existing(workdir)
    first = folder.read(discriminator, DETECTION) if discriminator is not None else None
    if first is not None:
        _refuse_energies(first)
    second = folder.read(generator, MASKED_LM) if generator is not None else None
    variables = None
    if discriminator is None or generator is None:
        variables = folder.checkpoint(discriminator or generator or "")
    if variables is not None and generator is None:
        both = tf1_names.networks(variables, str(discriminator))
        if "generator" in both:
            second = folder.read(str(discriminator), MASKED_LM, say=False)
    if first is not None and second is not None:
        dims, params = pair.join(first, second, embeddings)
    elif first is not None:
        dims, params = pair.lone_discriminator(first)
        _say_fresh(first, dims)
    else:
        assert second is not None  # one of the two is there
        dims, params = pair.single(second)
    objective = registry.that_exports(MASKED_LM if first is None else DETECTION, dims)
    if first is not None:
        _say_fresh_head(first)
    models = [model for model in (first, second) if model is not None]
    tokenizer = _tokenizer(models)
    record = {
        "folders": [{"name": m.path.resolve().name, "sha256": m.digests} for m in models],
        "fresh_generator": first is not None and second is None,
        "embeddings": embeddings or "equal",
        "tokenizer_hash": tokenizer.hash,
    }
    moments = None
    if change:
        dims, params, said = grow.grow(change, dims, params, tokenizer)
        tokenizer = change.tokenizer or tokenizer
        record |= {"changes": said, "tokenizer_hash": tokenizer.hash}
        print("\n".join(said), file=sys.stderr)
    elif variables is not None and (
        second is None or first is not None or not _has_pair(variables)
    ):
        moments = _moments(variables, dims, objective, params)
    step = 0 if variables is None or moments is None else tf1_names.step(variables)
    if moments is not None:
        print(
            f"Adam's moments and step {step} come along: pretrain goes on with the original's run; give it that run's "
            "train.steps, train.batch and optim.warmup",
            file=sys.stderr,
        )
    with files.new_folder(workdir) as temporary:
        tokenizer.save(temporary / "tokenizer")
        dims = pair.with_tokens(dims, tokenizer.size)
        imported.write(temporary, dims, objective, params, record, moments, step)


def _refuse_energies(model: Model) -> None:
    if (model.options.notes or {}).get("energy"):
        raise UserError(
            f"the discriminator in {model.path} is Electric's: its logits are energies, and the towers that it learned "
            "against stayed behind; go on with the workdir that it was exported from, or fine-tune it by finetune "
            f"--init {model.path}"
        )


def _has_pair(variables: Tensors) -> bool:
    """Whether a checkpoint holds two networks, so that one of them is not its run."""
    return len(tf1_names.networks(variables, "the checkpoint")) > 1


def _moments(
    variables: Tensors, dims: Dimensions, objective: str, params: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]] | None:
    """{"mu", "nu"} by our paths, from Adam's slots in one of the original's checkpoints; None where it has none."""
    tables = {
        "discriminator" if model.hf_class == DETECTION else "generator": names.table(
            model, pair.shape_of(dims, model.spec)
        )
        for model in registry.exports(objective, dims)
    }
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, slot in tf1_names.MOMENTS.items():
        if not any(variable.endswith(slot) for variable in variables):
            return None
        networks = tf1_names.networks(variables, "Adam's slots", slot)
        found[name] = {}
        for role, entries in tables.items():
            if role in networks:
                found[name] |= names.import_(
                    networks[role], entries, dims.padded_rows, f"Adam's slots {slot}"
                )
        for path in params.keys() - found[name].keys():  # of what the checkpoint does not train
            found[name][path] = np.zeros_like(params[path])
    return found


def _named(
    params: dict[str, np.ndarray],
    exports: Sequence[Export],
    tables: Sequence[Sequence[Entry]],
    say: bool,
) -> dict[str, np.ndarray]:
    """The parameters that leave: all but those that a model leaves behind, or that a lone encoder does not need."""
    beside = {name for export in exports for name in export.beside}
    behind = sorted({name.partition("/")[0] for name in params} & beside)
    if behind and say:
        print(
            f"no class of transformers has these parameters, which stay behind: {', '.join(behind)}",
            file=sys.stderr,
        )
    params = {name: x for name, x in params.items() if name.partition("/")[0] not in beside}
    if all(export.hf_class != ENCODER for export in exports):
        return params
    wanted = {entry.ours for table in tables for entry in table}
    left = sorted({name.partition("/")[0] for name in params.keys() - wanted})
    if left and say:
        print(
            f"the encoder leaves alone; parameters that stay behind: {', '.join(left)}",
            file=sys.stderr,
        )
    return {name: value for name, value in params.items() if name in wanted}


def _say_fresh(model: Model, dims: Dimensions) -> None:
    print(
        f"WARNING: no generator was given to go with {model.path}. A NEW, UNTRAINED generator of "
        f"{dims.generator.layers} layers and width {dims.generator_width} takes its place; it shares "
        "the discriminator's embeddings. Training has to teach it before its samples mean anything.",
        file=sys.stderr,
    )


def _say_fresh_head(model: Model) -> None:
    if model.shape.family == MODERN and model.role != DETECTION:
        print(
            f"{model.path} holds {model.named or 'an encoder'}, which tells no replaced tokens: its encoder becomes "
            "the discriminator's, under a NEW, UNTRAINED head.",
            file=sys.stderr,
        )


def _tokenizer(models: Sequence[Model]) -> tokenizers.Tokenizer:
    """The tokenizer in the first folder, which must be that of the others and fit their table."""
    tokenizer = tokenizers.load(models[0].path)
    if tokenizer.size > models[0].shape.vocab:
        raise UserError(
            f"the tokenizer in {models[0].path} has {tokenizer.size} tokens, more than the "
            f"{models[0].shape.vocab} rows of the model's word table"
        )
    for other in models[1:]:
        if _has_tokenizer(other.path) and tokenizers.load(other.path).hash != tokenizer.hash:
            raise UserError(
                f"{models[0].path} and {other.path} have different tokenizers; a pair shares one"
            )
    return tokenizer


def _has_tokenizer(path: Path) -> bool:
    names_ = ("tokenizer.json", "vocab.txt")
    return any((path / name).is_file() for name in names_) or any(path.glob("*.model"))
