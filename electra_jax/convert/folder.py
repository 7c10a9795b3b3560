"""One Hugging Face model folder: read with every doubt spoken, written the same way each time."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files, records
from electra_jax.convert import config as configs
from electra_jax.convert.config import CONFIG
from electra_jax.convert.entries import Options, Shape
from electra_jax.convert.formats import table, tf1_names, variants
from electra_jax.convert.formats.safetensors_file import WEIGHTS
from electra_jax.convert.formats.tensors import Tensors
from electra_jax.objective.export import DETECTION, ENCODER
from electra_jax.spec import UserError
from electra_jax.text.special import SpecialIds


@dataclass(frozen=True)
class Model:
    """A model folder: `tensors` by their names, read when asked for; `digests` file name -> SHA-256."""

    path: Path
    shape: Shape
    options: Options
    tensors: Mapping[str, np.ndarray]
    digests: dict[str, str]
    named: str = ""  # the class that its config names
    role: str = ""  # what it is for, by the class that ELECTRA has for it: DETECTION | MASKED_LM | ENCODER | a task's


def read(path: str | Path, architecture: str | None = None, say: bool = True) -> Model:
    """Reads a folder that holds `architecture`, any class when None, in whatever format; nothing in it is executed.

    `say` which format it took. Raises UserError for what is not such a folder: no config, another architecture,
    settings the model does not have, a damaged file.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"model folder {path} does not exist; give a folder with {CONFIG}")
    found = table.find(path, say)
    if found is not None and found[0] is table.TF1 and not (path / CONFIG).is_file():
        return _read_tf1(path, found[1], architecture)
    config = read_config(path)
    shape, options = configs.parse(path, config, architecture)
    if found is None:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:6])
        raise UserError(
            f"{path} has no weights: no {WEIGHTS}, pytorch_model.bin, flax_model.msgpack, tf_model.h5 or TensorFlow "
            f"checkpoint (model.ckpt-N.index); it has {names}"
        )
    form, weights = found
    if form is table.TF1:
        return _read_tf1(path, weights, architecture)
    tensors = variants.usual(form.read(weights), str(path), shape.family)
    named = (configs.architectures(path, config) or [""])[0]
    role = configs.role_of(config, named, architecture)
    return _model(path, shape, options, tensors, weights, named, role)


def is_model(path: Path) -> bool:
    """Whether a folder looks like a model's: a config.json, or a checkpoint of the original."""
    return (path / CONFIG).is_file() or any(path.glob("*.index"))


def checkpoint(path: str | Path) -> Tensors | None:
    """The variables of the original's checkpoint in a folder, by its own names; None where the folder has another
    format.
    """
    found = table.find(Path(path), say=False)
    return table.TF1.read(found[1]) if found is not None and found[0] is table.TF1 else None


def _read_tf1(path: Path, weights: list[Path], architecture: str | None) -> Model:
    """One network of a checkpoint of the original; any encoder of it where `architecture` is None."""
    stored = table.TF1.read(weights)
    what = str(weights[0])
    if architecture is None:
        tensors = tf1_names.encoder(stored)
    else:
        role = "discriminator" if architecture == DETECTION else "generator"
        networks = tf1_names.networks(stored, what)
        if role not in networks:
            heads = ", ".join(sorted(n for n in stored if n.startswith("task_specific/"))[:2])
            there = f"a fine-tuned encoder ({heads}); give it to finetune --init" if heads else ""
            raise UserError(
                f"{what} holds no {role}, but {there or ' and '.join(networks) or 'an encoder alone'}"
            )
        tensors = networks[role]
    settings = tf1_names.hparams(path)
    config = tf1_names.config(tensors, architecture or ENCODER, settings)
    if not settings:
        heads = config["num_attention_heads"]
        print(
            f"{path} has no {tf1_names.HPARAMS}: {architecture or ENCODER} is taken to have {heads} attention heads",
            file=sys.stderr,
        )
    shape, options = configs.parse(path, config, architecture)
    return _model(path, shape, options, tensors, weights, role=architecture or ENCODER)


def _model(
    path: Path,
    shape: Shape,
    options: Options,
    tensors: Tensors,
    weights: list[Path],
    named: str = "",
    role: str = "",
) -> Model:
    refuse_not_finite(str(path), tensors, "it is damaged, or its training failed; get another")
    digests = {f.name: files.sha256(f) for f in weights}
    return Model(path, shape, options, tensors, digests, named, role)


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a model folder as a dict."""
    if not path.is_dir():
        raise UserError(f"model folder {path} does not exist; give a folder with {CONFIG}")
    if not (path / CONFIG).is_file():
        inside = ", ".join(sorted(p.parent.name for p in path.glob(f"*/{CONFIG}")))
        hint = f" (did you mean a folder in it: {inside}?)" if inside else ""
        raise UserError(f"{path} has no {CONFIG}; expected a Hugging Face model folder{hint}")
    return records.read(path / CONFIG)


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file; floats come back as float32, integers as they are.

    Raises UserError for a file that is damaged, and for a tensor of a dtype that has no meaning here (8-bit floats).
    """
    return dict(table.SAFETENSORS.read([file]))


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a safetensors file; the same tensors and metadata give the same bytes.

    Raises UserError, naming them, for tensors that hold NaN or infinity.
    """
    from safetensors.numpy import save_file

    refuse_not_finite(
        "the model", tensors, "export an earlier --step, or train again with a lower learning rate"
    )
    with files.new_file(file) as temporary:
        save_file({name: tensors[name] for name in sorted(tensors)}, temporary, metadata=metadata)


def refuse_not_finite(what: str, tensors: Mapping[str, np.ndarray], way_out: str) -> None:
    """UserError, naming them, for tensors that hold NaN or infinity."""
    bad = [
        f"{name} ({np.sum(~np.isfinite(value)):,} of {value.size:,})"
        for name, value in tensors.items()
        if value.dtype.kind == "f" and not np.isfinite(value).all()
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(f"{what} holds NaN or infinity, in {', '.join(bad[:3])}{more}; {way_out}")


def write(
    path: Path,
    shape: Shape,
    options: Options,
    role: str,
    special: SpecialIds,
    tensors: Mapping[str, np.ndarray],
) -> None:
    """Writes config.json and model.safetensors of one model into the existing folder `path`."""
    files.write_json(path / CONFIG, configs.of(shape, options, role, special))
    write_tensors(path / WEIGHTS, tensors, {"format": "pt"})


def differences(pairs: Sequence[tuple[str, Any, Any]]) -> list[str]:
    """'name is a, expected b' for every (name, a, b) whose values differ."""
    return [f"{name} is {a!r}, expected {b!r}" for name, a, b in pairs if a != b]
