"""The models in a folder that can score texts: of a pretraining workdir, or of a Hugging Face folder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import records
from electra_jax.convert import exportable, folder, hf, names, pair
from electra_jax.convert.entries import Shape
from electra_jax.convert.formats import tf1_names
from electra_jax.finetune import record as finetuned
from electra_jax.learn import arrays
from electra_jax.model.backbone import EncoderSpec
from electra_jax.model.electra import Dimensions
from electra_jax.objective.export import DETECTION, MASKED_LM, Export
from electra_jax.scoring import network
from electra_jax.scoring.network import Spec
from electra_jax.spec import UserError, check_choice
from electra_jax.text import tokenizer as tokenizers
from electra_jax.text.tokenizer import Tokenizer
from electra_jax.workdir import away, imported
from electra_jax.workdir.record import FORMAT, RECORD


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A network that scores tokens, with its parameters as nested dicts of float32 arrays."""

    spec: Spec
    params: dict[str, Any]
    tokenizer: Tokenizer
    name: str  # what it is, such as "the generator of run/ at step 100"

    @property
    def room(self) -> int:
        """The most tokens that it reads at once beside [CLS] and [SEP]."""
        return self.spec.embeddings.positions - 2


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A model with a head, as tensors by transformers' names."""

    export: Export
    dims: Dimensions
    shape: Shape
    tensors: Mapping[str, np.ndarray]
    name: str
    tokenizer: Path

    @property
    def head(self) -> str:
        """One of network.HEADS; empty for an encoder alone."""
        heads = {MASKED_LM: network.MASKED_LM}
        heads[DETECTION] = network.ENERGY if self.export.energy else network.DETECTION
        return heads.get(self.export.hf_class, "")


def read(path: str, head: str = "", step: int | None = None, average: bool = False) -> Scorer:
    """The scorer of a folder with this head, or with that of the model it is first of all for.

    `step` and `average` choose the parameters of a workdir. Raises UserError for a folder without such a head, with
    those that it has.
    """
    if head:
        check_choice("--head", head, network.HEADS)
    with away.opened(path, write=False) as home:
        found = list(_found(home.folder, path, step, average))
        able = {one.head: one for one in reversed(found) if one.head}
        if not able:
            classes = ", ".join(one.export.hf_class or "an unknown class" for one in found)
            raise UserError(
                f"{path} has no head that scores texts: it holds {classes or 'nothing trained'}; give a masked LM, a "
                "discriminator, or a pretraining workdir with one"
            )
        if head and head not in able:
            there = ", ".join(one.head for one in found if one.head)
            raise UserError(f"{path} has no {head} head; it has {there}")
        return _scorer(able[head] if head else next(one for one in found if one.head))


def _found(path: Path, name: str, step: int | None, average: bool) -> Iterator[_Found]:
    if not path.is_dir():
        raise UserError(
            f"--model {name} does not exist; give a pretraining workdir or a model folder"
        )
    if finetuned.is_workdir(path):
        raise UserError(
            f"--model {name} is fine-tuned and has no head of pretraining; give the workdir it began with"
        )
    # Model folders have a file of this name, too.
    config = records.read(path / RECORD) if (path / RECORD).is_file() else {}
    if config.get("format") == FORMAT or (path / imported.RECORD).is_file():
        yield from _of_workdir(path, name, step, average)
        return
    if step is not None or average:
        raise UserError(f"--model {name} is no workdir: it has no --step and no --average")
    if not folder.is_model(path):
        inside = ", ".join(sorted(p.parent.name for p in path.glob(f"*/{folder.CONFIG}")))
        hint = f"; did you mean a folder in it: {inside}?" if inside else ""
        raise UserError(
            f"--model {name} is neither a workdir nor a model folder (no {folder.CONFIG}){hint}"
        )
    yield from _of_folder(path, name)


def _of_workdir(path: Path, name: str, step: int | None, average: bool) -> Iterator[_Found]:
    run = exportable.read(path, step, average)
    at = "" if run.facts.step is None else f" at step {run.facts.step}"
    for export, shape, tensors in hf.models(run, name, say=False):
        if export.trained:
            yield _Found(
                export=export,
                dims=run.dims,
                shape=shape,
                tensors=tensors,
                name=f"the {export.name} of {name}{at}",
                tokenizer=run.tokenizer,
            )


def _of_folder(path: Path, name: str) -> Iterator[_Found]:
    for architecture in _architectures(path):
        model = folder.read(path, architecture)
        dims = pair.dimensions(model)
        notes = model.options.notes or {}
        export = Export(
            name="model",
            hf_class=architecture or model.role,
            spec=dims.discriminator,
            what="",
            energy=bool(notes.get("energy")),
        )
        yield _Found(
            export=export,
            dims=dims,
            shape=model.shape,
            tensors=model.tensors,
            name=f"the {export.hf_class} in {name}",
            tokenizer=path,
        )


def _architectures(path: Path) -> list[str | None]:
    """The classes to read a folder as: of a checkpoint of the original, a class for each of its networks."""
    variables = folder.checkpoint(path)
    if variables is None:
        return [None]
    there = tf1_names.networks(variables, str(path))
    roles: dict[str, str | None] = {"discriminator": DETECTION, "generator": MASKED_LM}
    return [hf_class for role, hf_class in roles.items() if role in there] or [None]


def _scorer(found: _Found) -> Scorer:
    words = tokenizers.load(found.tokenizer)
    if words.size > found.dims.rows:
        raise UserError(
            f"{found.name}: its tokenizer has {words.size} tokens, more than the {found.dims.rows} rows of its word "
            "table"
        )
    # Scores are compared with each other: float32, whatever the network was trained in.
    settled = replace(
        found.dims.spec, dtype="float32", residual_dtype="float32", remat="none", **_UNDROPPED
    )
    dims = pair.with_tokens(Dimensions(settled, found.dims.vocab_size), words.size)
    encoder = _exact(found.export.spec)
    spec = Spec(
        head=found.head,
        embeddings=dims.embeddings(encoder.embedding),
        encoder=encoder,
        vocab_size=words.size,
        family=dims.spec.family,
    )
    plain = replace(found.export, embeddings="embeddings", encoder="encoder", head="head")
    table = names.table(plain, found.shape)
    params = names.import_(found.tensors, table, dims.padded_rows, found.name)
    return Scorer(spec=spec, params=arrays.nest(params), tokenizer=words, name=found.name)


_UNDROPPED: dict[str, Any] = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "embedding_dropout": 0.0,
    "mlp_dropout": 0.0,
}


def _exact(spec: EncoderSpec) -> EncoderSpec:
    """The encoder in float32 and without dropout."""
    exact: dict[str, Any] = {"dtype": "float32", "residual_dtype": "float32"}
    stack = tuple(
        replace(
            layer,
            **exact,
            dropout=0.0,
            attention_dropout=0.0,
            mlp_dropout=0.0,
            recompute_attention=False,
        )
        for layer in spec.stack
    )
    return replace(spec, stack=stack, remat=False)
