"""One Hugging Face model folder: read with every doubt spoken, written the same way each time."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files, records
from electra_jax.convert.formats import table, tf1_names, variants
from electra_jax.convert.formats.safetensors_file import WEIGHTS
from electra_jax.convert.formats.tensors import Tensors
from electra_jax.convert.names import Shape
from electra_jax.objective.export import DETECTION, ENCODER
from electra_jax.spec import UserError

CONFIG = "config.json"

# Hugging Face's name of every number in a Shape, and the value its configuration class gives a
# missing one (transformers' ElectraConfig).
DIMENSIONS = {
    "vocab": ("vocab_size", 30522),
    "embedding": ("embedding_size", 128),
    "width": ("hidden_size", 256),
    "heads": ("num_attention_heads", 4),
    "ffn": ("intermediate_size", 1024),
    "layers": ("num_hidden_layers", 12),
    "positions": ("max_position_embeddings", 512),
    "types": ("type_vocab_size", 2),
}
# The most of each that is taken at its word: what a config asks for beyond these is a mistake or worse.
MOST = {"layers": 1000, "heads": 1024, "types": 1024, "positions": 2**20, "vocab": 2**24}
MOST_OTHERWISE = 2**18
# What the model computes and cannot be told otherwise: key, the one value, the value when missing.
FIXED = (
    ("model_type", "electra", None),
    ("hidden_act", "gelu", "gelu"),
    ("layer_norm_eps", 1e-12, 1e-12),
    ("position_embedding_type", "absolute", "absolute"),
    ("is_decoder", False, False),
    ("add_cross_attention", False, False),
)


@dataclass(frozen=True)
class Options:
    """What a config.json says besides dimensions: dropouts, initial scale, and our own notes."""

    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    notes: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Model:
    """A model folder: `tensors` by their names, read when asked for; `digests` file name -> SHA-256."""

    path: Path
    shape: Shape
    options: Options
    tensors: Mapping[str, np.ndarray]
    digests: dict[str, str]
    named: str = ""  # the class that its config names


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
    shape, options = _parse_config(path, config, architecture)
    if found is None:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:6])
        raise UserError(
            f"{path} has no weights: no {WEIGHTS}, pytorch_model.bin, flax_model.msgpack, tf_model.h5 or TensorFlow "
            f"checkpoint (model.ckpt-N.index); it has {names}"
        )
    form, weights = found
    if form is table.TF1:
        return _read_tf1(path, weights, architecture)
    tensors = variants.usual(form.read(weights), str(path))
    named = (architectures(path, config) or [""])[0]
    return _model(path, shape, options, tensors, weights, named)


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
    shape, options = _parse_config(path, config, architecture)
    return _model(path, shape, options, tensors, weights)


def _model(
    path: Path,
    shape: Shape,
    options: Options,
    tensors: Tensors,
    weights: list[Path],
    named: str = "",
) -> Model:
    refuse_not_finite(str(path), tensors, "it is damaged, or its training failed; get another")
    return Model(path, shape, options, tensors, {f.name: files.sha256(f) for f in weights}, named)


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a model folder as a dict."""
    if not path.is_dir():
        raise UserError(f"model folder {path} does not exist; give a folder with {CONFIG}")
    if not (path / CONFIG).is_file():
        inside = ", ".join(sorted(p.parent.name for p in path.glob(f"*/{CONFIG}")))
        hint = f" (did you mean a folder in it: {inside}?)" if inside else ""
        raise UserError(f"{path} has no {CONFIG}; expected a Hugging Face model folder{hint}")
    return records.read(path / CONFIG)


def _parse_config(
    path: Path, config: Mapping[str, Any], architecture: str | None
) -> tuple[Shape, Options]:
    problems = [
        f"{key} is {records.short(config.get(key, default))}, expected {value!r}"
        for key, value, default in FIXED
        if config.get(key, default) != value
    ]
    named = architectures(path, config)
    if architecture is not None and named and architecture not in named:
        problems.insert(0, f"architectures is {named!r}, expected {architecture!r}")
    numbers = {}
    for field, (key, default) in DIMENSIONS.items():
        value = numbers[field] = config.get(key, default)
        most = MOST.get(field, MOST_OTHERWISE)
        if type(value) is not int or not 1 <= value <= most:
            expected = f"expected a positive integer of at most {most:,}"
            problems.append(f"{key} is {records.short(value)}, {expected}")
    if not problems and numbers["width"] % numbers["heads"]:
        problems.append(
            f"hidden_size {numbers['width']} is not a multiple of "
            f"num_attention_heads {numbers['heads']}"
        )
    rates = {}
    for field, key, usual in (
        ("dropout", "hidden_dropout_prob", 0.1),
        ("attention_dropout", "attention_probs_dropout_prob", 0.1),
        ("init_std", "initializer_range", 0.02),
    ):
        rate = config.get(key, usual)
        if type(rate) not in (int, float) or not 0 <= rate < 1:
            problems.append(f"{key} is {records.short(rate)}, expected a number in [0, 1)")
        else:
            rates[field] = float(rate)
    notes = config.get("electra_jax")
    if notes is not None and not isinstance(notes, dict):
        problems.append(f"electra_jax is {records.short(notes)}, expected a JSON object")
    elif notes is not None:
        kinds = {"tying": str | None, "energy": bool | None}
        records.check(notes, kinds, f"{path / CONFIG}, electra_jax")
    if problems:
        raise UserError(
            f"{path / CONFIG} does not describe a model this program computes:\n  "
            + "\n  ".join(problems)
        )
    return Shape(**numbers), Options(**rates, notes=notes)


def architectures(path: Path, config: Mapping[str, Any]) -> list[str]:
    """The classes that a config names, often one; empty where it names none."""
    records.check(dict(config), {"architectures": list[str] | None}, path / CONFIG)
    return config.get("architectures") or []


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
    architecture: str,
    pad_id: int,
    tensors: Mapping[str, np.ndarray],
) -> None:
    """Writes config.json and model.safetensors of one model into the existing folder `path`."""
    files.write_json(path / CONFIG, hf_config(shape, options, architecture, pad_id))
    write_tensors(path / WEIGHTS, tensors, {"format": "pt"})


def hf_config(shape: Shape, options: Options, architecture: str, pad_id: int) -> dict[str, Any]:
    """The config.json of a model: every key that transformers reads for it, in a fixed order."""
    config: dict[str, Any] = {"architectures": [architecture], "model_type": "electra"}
    config |= {key: getattr(shape, field) for field, (key, _) in DIMENSIONS.items()}
    config |= {key: value for key, value, _ in FIXED if key not in config}
    config |= {
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.attention_dropout,
        "initializer_range": options.init_std,
        "pad_token_id": pad_id,
        "tie_word_embeddings": True,
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_activation": "gelu",
        "summary_last_dropout": 0.1,
        "use_cache": True,
        "dtype": "float32",
    }
    if options.notes:
        config["electra_jax"] = dict(options.notes)
    return config


def differences(pairs: Sequence[tuple[str, Any, Any]]) -> list[str]:
    """'name is a, expected b' for every (name, a, b) whose values differ."""
    return [f"{name} is {a!r}, expected {b!r}" for name, a, b in pairs if a != b]
