"""Hugging Face, both ways: a workdir becomes model folders, model folders become a workdir."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from electra_jax import files, remote
from electra_jax.convert import exportable, folder, names, pair
from electra_jax.convert.card import About, card
from electra_jax.convert.folder import Model, Options
from electra_jax.convert.names import Entry
from electra_jax.model.electra import Dimensions
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
    exports, shapes = found.exports, [pair.shape_of(found.dims, e.spec) for e in found.exports]
    tables = [names.table(*one) for one in zip(exports, shapes, strict=True)]
    params = _named(found.params, exports, tables)
    what = f"the parameters in {name}"
    tensors = names.export(params, tables, found.dims.padded_rows, what)
    tokenizer = tokenizers.load(found.tokenizer)
    spec = found.dims.spec
    with files.new_folder(output) as temporary:
        written = []
        for model, shape, values in zip(exports, shapes, tensors, strict=True):
            if not model.trained:
                continue
            path = temporary / model.name
            path.mkdir()
            notes = {"tying": model.tying} if model.tying else None
            options = Options(spec.dropout, spec.attention_dropout, spec.init_std, notes)
            folder.write(path, shape, options, model.hf_class, tokenizer.special.pad, values)
            tokenizer.save(path, max_length=shape.positions)
            parameters = sum(value.size for value in values.values())
            files.write_text(path / "README.md", card(model, shape, parameters, facts))
            written.append(model.name)
    if found.note:
        print(found.note, file=sys.stderr)
    return written


def import_(
    discriminator: str | Path | None,
    generator: str | Path | None = None,
    workdir: str | Path = "",
    embeddings: str | None = None,
) -> None:
    """Writes the workdir that holds the models of these folders, for training or export.

    Without a generator a fresh one is made, and said on stderr; without a discriminator the generator
    is taken for a masked LM that is the whole model. `embeddings` ("discriminator" or "average") settles a
    pair whose embeddings differ. Raises UserError for everything that does not fit, and leaves nothing.
    """
    if embeddings is not None:
        check_choice("--embeddings", embeddings, ("discriminator", "average"))
    if discriminator is None and generator is None:
        raise UserError("nothing to import: give a discriminator, a generator or both")
    with (
        remote.output(workdir) as place,
        remote.inputs(discriminator or "", generator or "") as (first, second),
    ):
        _import(first or None, second or None, place, embeddings)


def _import(
    discriminator: str | None, generator: str | None, workdir: str, embeddings: str | None
) -> None:
    files.refuse_existing(workdir)
    first = folder.read(discriminator, DETECTION) if discriminator is not None else None
    second = folder.read(generator, MASKED_LM) if generator is not None else None
    if first is not None and second is not None:
        dims, params = pair.join(first, second, embeddings)
    elif first is not None:
        dims, params = pair.lone_discriminator(first)
        _say_fresh(first, dims)
    else:
        assert second is not None  # one of the two is there
        dims, params = pair.single(second)
    objective = registry.that_exports(MASKED_LM if first is None else DETECTION, dims)
    models = [model for model in (first, second) if model is not None]
    tokenizer = _tokenizer(models)
    record = {
        "folders": [{"name": m.path.resolve().name, "sha256": m.digests} for m in models],
        "fresh_generator": first is not None and second is None,
        "embeddings": embeddings or "equal",
        "tokenizer_hash": tokenizer.hash,
    }
    with files.new_folder(workdir) as temporary:
        tokenizer.save(temporary / "tokenizer")
        imported.write(temporary, pair.with_tokens(dims, tokenizer.size), objective, params, record)


def _named(
    params: dict[str, np.ndarray], exports: Sequence[Export], tables: Sequence[Sequence[Entry]]
) -> dict[str, np.ndarray]:
    """The parameters that leave: all, but with an encoder that leaves alone, those that it does not need."""
    if all(export.hf_class != ENCODER for export in exports):
        return params
    wanted = {entry.ours for table in tables for entry in table}
    if left := sorted({name.partition("/")[0] for name in params.keys() - wanted}):
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
