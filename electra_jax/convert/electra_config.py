"""The config.json of an ELECTRA: what it says of a model, and how it is written."""

from collections.abc import Mapping
from typing import Any

from electra_jax.convert.entries import Options, Shape
from electra_jax.text.special import SpecialIds

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
# What the model computes and cannot be told otherwise: key, the one value, the value when missing.
FIXED = (
    ("model_type", "electra", None),
    ("hidden_act", "gelu", "gelu"),
    ("layer_norm_eps", 1e-12, 1e-12),
    ("position_embedding_type", "absolute", "absolute"),
    ("is_decoder", False, False),
    ("add_cross_attention", False, False),
)
RATES = {
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "init_std": ("initializer_range", 0.02),
}


def own(config: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Nothing beside DIMENSIONS."""
    return {}


def role_of(named: str, config: Mapping[str, Any]) -> str:
    """The class itself: roles are called by ELECTRA's classes."""
    return named


def write(shape: Shape, options: Options, role: str, special: SpecialIds) -> dict[str, Any]:
    """The config.json of a model: every key that transformers reads for it, in a fixed order."""
    config: dict[str, Any] = {"architectures": [role], "model_type": "electra"}
    config |= {key: getattr(shape, field) for field, (key, _) in DIMENSIONS.items()}
    config |= {key: value for key, value, _ in FIXED if key not in config}
    config |= {
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.attention_dropout,
        "initializer_range": options.init_std,
        "pad_token_id": special.pad,
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
