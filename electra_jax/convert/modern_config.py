"""The config.json of a ModernBERT: what it says of a model, and how it is written."""

from collections.abc import Mapping
from typing import Any

from electra_jax import records
from electra_jax.convert.entries import Options, Shape
from electra_jax.convert.modern_names import BORDER, LABELS
from electra_jax.model.family import MODERN_DEFAULTS
from electra_jax.model.options import MODERN
from electra_jax.objective.export import DETECTION, ENCODER, MASKED_LM
from electra_jax.text.special import SpecialIds

# Their name of every number of a Shape, and the value their configuration class gives a missing one (ModernBertConfig).
DIMENSIONS = {
    "vocab": ("vocab_size", 50368),
    "width": ("hidden_size", 768),
    "heads": ("num_attention_heads", 12),
    "ffn": ("intermediate_size", 1152),
    "layers": ("num_hidden_layers", 22),
    "positions": ("max_position_embeddings", 8192),
    "local_attention": ("local_attention", 128),
}
# What the model computes and cannot be told otherwise: key, the one value, the value when missing.
_FIXED = (
    ("hidden_activation", "gelu"),
    ("classifier_activation", "gelu"),
    ("norm_eps", 1e-5),
    ("norm_bias", False),
    ("attention_bias", False),
    ("mlp_bias", False),
    ("classifier_bias", False),
    ("decoder_bias", True),
    ("tie_word_embeddings", True),
)
FIXED = (("model_type", "modernbert", None), *((key, value, value) for key, value in _FIXED))
RATES = {
    "attention_dropout": ("attention_dropout", 0.0),
    "embedding_dropout": ("embedding_dropout", 0.0),
    "mlp_dropout": ("mlp_dropout", 0.0),
    "init_std": ("initializer_range", 0.02),
}
GLOBAL, LOCAL = "full_attention", "sliding_attention"
_EVERY = "global_attn_every_n_layers"
_BASES = {"global_rope_theta": GLOBAL, "local_rope_theta": LOCAL}


def own(config: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The numbers of its own that a config gives a Shape; what is wrong with it is added to `problems`.

    Two spellings are known: that of released models (global_attn_every_n_layers, global_rope_theta) and that which
    transformers 5 writes (layer_types, rope_parameters).
    """
    ropes = config.get("rope_parameters") or {}
    if not isinstance(ropes, Mapping):
        problems.append(f"rope_parameters is {records.short(ropes)}, expected a JSON object")
        ropes = {}
    found: dict[str, Any] = {"family": MODERN, "types": 1, _EVERY: _every(config, problems)}
    for name, kind in _BASES.items():
        said = ropes.get(kind) or {}
        scaled = said.get("rope_type", "default") if isinstance(said, Mapping) else said
        if scaled != "default" or config.get("rope_scaling"):
            problems.append(
                f"rope_parameters.{kind} is {records.short(said)}; scaled positions are not computed here"
            )
            continue
        base = said.get("rope_theta", config.get(name) or MODERN_DEFAULTS[name])
        if type(base) not in (int, float) or not 1 < base <= 1e12:
            problems.append(f"{name} is {records.short(base)}, expected a number above 1")
        else:
            found[name] = float(base)
    return found


def _every(config: Mapping[str, Any], problems: list[str]) -> int:
    """Of how many layers the first is global."""
    layers, every = config.get("layer_types"), config.get(_EVERY)
    usual = int(MODERN_DEFAULTS[_EVERY])
    if layers is None:
        every = usual if every is None else every
        if type(every) is int and 1 <= every <= 1000:
            return every
        problems.append(f"{_EVERY} is {records.short(every)}, expected a positive integer")
        return usual
    if isinstance(layers, list) and 0 < len(layers) <= 1000:
        # Several fit where there are fewer layers than two global ones need.
        for n in (every, usual, *range(1, len(layers) + 1)):
            if type(n) is int and n > 0 and layers == layer_types(n, len(layers)):
                return n
    problems.append(
        f"layer_types is {records.short(layers)}, expected {GLOBAL} for every n-th layer from the lowest on, and "
        f"{LOCAL} for the others"
    )
    return usual


def layer_types(every: int, layers: int) -> list[str]:
    """transformers' name of each layer's attention."""
    return [LOCAL if i % every else GLOBAL for i in range(layers)]


def write(shape: Shape, options: Options, role: str, special: SpecialIds) -> dict[str, Any]:
    """The config.json of a model in the spelling of released ones, which transformers reads in every version."""
    named = BORDER.classes.get(role, role)
    config: dict[str, Any] = {"architectures": [named], "model_type": BORDER.model_type}
    config |= {key: getattr(shape, field) for field, (key, _) in DIMENSIONS.items()}
    config |= {key: value for key, value, _ in FIXED}
    config |= {key: getattr(options, field) for field, (key, _) in RATES.items()}
    config |= {name: getattr(shape, name) for name in (_EVERY, *_BASES)}
    config |= {
        "initializer_cutoff_factor": 2.0,
        "layer_norm_eps": 1e-5,
        "classifier_pooling": "cls",
        "classifier_dropout": 0.0,
        "pad_token_id": special.pad,
        "bos_token_id": special.cls,
        "cls_token_id": special.cls,
        "eos_token_id": special.sep,
        "sep_token_id": special.sep,
        "dtype": "float32",
    }
    if role == DETECTION:
        config["id2label"] = {str(i): label for i, label in enumerate(LABELS)}
        config["label2id"] = {label: i for i, label in enumerate(LABELS)}
    if options.notes:
        config["electra_jax"] = dict(options.notes)
    return config


def role_of(named: str, config: Mapping[str, Any]) -> str:
    """What a folder of this class is for: detection where its classes are ours, a masked LM, else an encoder."""
    ours = {str(i): label for i, label in enumerate(LABELS)}
    if named == BORDER.classes[DETECTION] and config.get("id2label") == ours:
        return DETECTION
    return MASKED_LM if named == BORDER.classes[MASKED_LM] else ENCODER
