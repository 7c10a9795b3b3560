"""Where an encoder comes from: a pretraining workdir, a Hugging Face folder, a fine-tuned workdir, or nowhere."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import remote
from electra_jax.convert import exportable, folder, names, pair
from electra_jax.convert.folder import Model
from electra_jax.finetune import record
from electra_jax.finetune.options import ModelOptions
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions
from electra_jax.objective.export import ENCODER
from electra_jax.spec import UserError
from electra_jax.text import tokenizer as tokenizers
from electra_jax.text.tokenizer import Tokenizer
from electra_jax.workdir import away, imported
from electra_jax.workdir.record import RECORD

RANDOM = "random"


@dataclass(frozen=True)
class Start:
    """An encoder to fine-tune. `params` is flat, path -> float32 array; None for a fresh one."""

    dims: Dimensions
    params: dict[str, np.ndarray] | None
    tokenizer: Tokenizer
    origin: dict[str, Any]  # what it was, for the record

    @property
    def tree(self) -> dict[str, Any] | None:
        """The parameters as nested dicts: embeddings, encoder."""
        return None if self.params is None else arrays.nest(self.params)

    def digest(self) -> str:
        """SHA-256 of the parameters; of none, of nothing."""
        found = hashlib.sha256()
        for name in sorted(self.params or {}):
            found.update(name.encode())
            found.update(np.ascontiguousarray(self.params[name]).tobytes())  # type: ignore[index]
        return found.hexdigest()


def read(init: str, spec: ModelOptions, tokenizer: str = "") -> Start:
    """The encoder that `--init` names, with the dropouts and precision of `spec`.

    `tokenizer` is needed for "random" alone; where it is given otherwise it must be the encoder's.
    Raises UserError for what is none of the kinds, and for tensors that do not fit, all of them.
    """
    if init == RANDOM:
        if not tokenizer:
            raise UserError("--init random needs a vocabulary; give --tokenizer FOLDER")
        words = tokenizers.load(tokenizer)
        return Start(Dimensions(spec.random(), words.size), None, words, {"kind": RANDOM})
    if remote.is_remote(init):
        with away.opened(init, write=False) as home:
            return read(str(home.folder), spec, tokenizer)
    path = Path(init)
    if not path.is_dir():
        raise UserError(
            f"--init {init} does not exist; give a pretraining workdir, a fine-tuned workdir, a "
            f"Hugging Face folder, or {RANDOM!r}"
        )
    if (path / record.RECORD).is_file():
        found = _finetuned(path)
    elif ((path / RECORD).is_file() and (path / "checkpoints").is_dir()) or (
        path / imported.RECORD
    ).is_file():
        found = _pretrained(path)
    elif folder.is_model(path):
        found = _hugging_face(path)
    else:
        inside = ", ".join(sorted(p.parent.name for p in path.glob(f"*/{folder.CONFIG}")))
        hint = f"; did you mean a folder in it: {inside}?" if inside else ""
        raise UserError(
            f"--init {init} is neither a workdir nor a Hugging Face folder (no config.json){hint}"
        )
    if tokenizer and tokenizers.load(tokenizer).hash != found.tokenizer.hash:
        raise UserError(
            f"--tokenizer {tokenizer} is not the tokenizer of --init {init}; leave it out"
        )
    if found.tokenizer.size > found.dims.vocab_size:
        raise UserError(
            f"--init {init}: its tokenizer has {found.tokenizer.size} tokens, more than the "
            f"{found.dims.vocab_size} rows of its word table"
        )
    for name, value in (found.params or {}).items():
        if not np.isfinite(value).all():
            raise UserError(
                f"--init {init}: {name} holds numbers that are not finite; the encoder is damaged, or "
                "its training had diverged; take an earlier checkpoint or another copy"
            )
    dims = Dimensions(spec.applied(found.dims.spec), found.dims.vocab_size)
    return Start(dims, found.params, found.tokenizer, found.origin)


def _pretrained(path: Path) -> Start:
    run = exportable.read(path)
    model = run.exports[0]
    params = {
        f"{ours}/{name.removeprefix(f'{theirs}/')}": value
        for ours, theirs in (("encoder", model.encoder), ("embeddings", model.embeddings))
        for name, value in run.params.items()
        if name.startswith(f"{theirs}/")
    }
    words = tokenizers.load(run.tokenizer)
    return _checked(
        path,
        run.dims,
        params,
        words,
        {"kind": "workdir", "objective": run.objective, "step": run.facts.step},
    )


def _finetuned(path: Path) -> Start:
    found = record.read(path)
    run, params = record.best_params(path, found)
    kept = {
        name: value
        for name, value in params.items()
        if name.startswith(("embeddings/", "encoder/"))
    }
    words = tokenizers.load(path / "tokenizer")
    return _checked(
        path,
        found.dims,
        kept,
        words,
        {"kind": "fine-tuned", "tasks": list(found.tasks), "run": run},
    )


def _hugging_face(path: Path) -> Start:
    model = folder.read(path)
    dims = pair.dimensions(model)
    what = f"--init {path}"
    tensors = names.encoder_tensors(model.tensors, model.shape.family, what)
    params = names.import_(tensors, names.encoder_only(model.shape), dims.padded_rows, what)
    words = tokenizers.load(path)
    return Start(dims, params, words, _origin(model))


def _origin(model: Model) -> dict[str, Any]:
    return {
        "kind": "hugging face",
        "class": model.named or ENCODER,
        "name": model.path.resolve().name,
        "sha256": model.digests,
    }


def _checked(
    path: Path,
    dims: Dimensions,
    params: dict[str, np.ndarray],
    words: Tokenizer,
    origin: dict[str, Any],
) -> Start:
    table = names.encoder_only(pair.shape_of(dims, dims.discriminator))
    wanted = {entry.ours: entry.our_shape(dims.padded_rows) for entry in table}
    names.check(wanted, {name: tuple(x.shape) for name, x in params.items()}, f"--init {path}")
    return Start(dims, params, words, origin | {"name": path.resolve().name})
