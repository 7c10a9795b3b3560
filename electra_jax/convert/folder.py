"""One Hugging Face model folder: read with every doubt spoken, written the same way each time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files, records
from electra_jax.convert.names import Shape
from electra_jax.objective.export import ENCODER
from electra_jax.spec import UserError

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
# Formats that can run code when opened, or that need a library we do not have.
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.bin")

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
# Of the tensors in a file; the 8-bit floats lack the scales that they mean something with.
_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I32",
    "I16",
    "I8",
    "U64",
    "U32",
    "U16",
    "U8",
    "BOOL",
)
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
    """A model folder in memory: `tensors` by their names, `digests` file name -> SHA-256."""

    path: Path
    shape: Shape
    options: Options
    tensors: dict[str, np.ndarray]
    digests: dict[str, str]


def read(path: str | Path, architecture: str | None = None) -> Model:
    """Reads a folder that holds `architecture`, any class when None; nothing in it is executed.

    Raises UserError for what is not such a folder: no config, another architecture, settings the
    model does not have, a pickle instead of safetensors, a damaged file.
    """
    path = Path(path)
    config = read_config(path)
    shape, options = _parse_config(path, config, architecture)
    weights = _weight_files(path, architecture or (architectures(path, config) or [ENCODER])[0])
    tensors: dict[str, np.ndarray] = {}
    for file in weights:
        tensors.update(read_tensors(file))
    refuse_not_finite(str(path), tensors, "it is damaged, or its training failed; get another")
    return Model(path, shape, options, tensors, {f.name: files.sha256(f) for f in weights})


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
        records.check(notes, {"tying": str | None}, f"{path / CONFIG}, electra_jax")
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


def _weight_files(path: Path, architecture: str) -> list[Path]:
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if (path / INDEX).is_file():
        index = records.read(path / INDEX)
        kinds = {"weight_map": dict[str, records.Name()]}  # type: ignore[misc]
        names = sorted(set(records.check(index, kinds, path / INDEX)["weight_map"].values()))
        lost = [name for name in names if not (path / name).is_file()]
        if lost:
            raise UserError(f"{path} lacks the weight files {', '.join(lost)} its {INDEX} names")
        return [path / name for name in names]
    for pickle in PICKLES:
        if (path / pickle).exists():
            raise UserError(
                f"{path} has {pickle}, a pickle that can run code when it is opened; only "
                f"safetensors is read. Convert it where you trust it, then import again:\n  "
                f"{conversion_command(path, architecture)}"
            )
    raise UserError(f"{path} has no {WEIGHTS}; expected a Hugging Face model folder")


def conversion_command(path: Path, architecture: str) -> str:
    """The command that writes model.safetensors beside a pickle (needs torch and transformers)."""
    where = json.dumps(str(path)).replace("'", "\\x27")
    return (
        f"python -c 'from transformers import {architecture} as M; "
        f"M.from_pretrained({where}).save_pretrained({where})'"
    )


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file; floats come back as float32, integers as they are.

    Raises UserError for a file that is damaged, and for a tensor of a dtype that has no meaning here (8-bit floats).
    """
    import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stored:
            names = list(stored.keys())
            for name in names:
                if (dtype := stored.get_slice(name).get_dtype()) not in _DTYPES:
                    raise UserError(
                        f"{file}: tensor {name} is of dtype {dtype}, which is not read; save the model in float32 or "
                        "bfloat16"
                    )
            tensors = {name: stored.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a whole safetensors file: {error}") from error
    return {
        name: value if value.dtype.kind in "iub" else np.asarray(value, np.float32)
        for name, value in tensors.items()
    }


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
