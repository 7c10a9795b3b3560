"""The networks in one of the original's checkpoints, by the names of its variables."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax import records
from electra_jax.convert.formats.tensors import Stored, Tensors
from electra_jax.spec import UserError

HPARAMS = "hparams.json"
HEAD_WIDTH = 64  # of the original's attention heads, where hparams.json does not say otherwise
MOMENTS = {"mu": "/adam_m", "nu": "/adam_v"}
STEP = "global_step"
_SHARED, _OWN = "electra/", "generator/"
_DETECTION, _PREDICTION = "discriminator_predictions/", "generator_predictions/"


def networks(tensors: Tensors, what: str, slot: str = "") -> dict[str, Tensors]:
    """{"discriminator": ..., "generator": ...}, those that there are, by PyTorch's names.

    `slot`: of Adam's slots of this name ("/adam_m") in place of the variables. A checkpoint of a masked LM, or one
    whose networks share all, gives a generator with the encoder under electra/. UserError where there is no network.
    """
    stored = {
        name.removesuffix(slot): value
        for name, value in tensors.stored().items()
        if name.endswith(slot) and (slot or not name.endswith(tuple(MOMENTS.values())))
    }
    towers = sorted(
        {name.partition("/")[0] for name in stored if re.match(r"generator_(ltr|rtl)/", name)}
    )
    if towers:
        raise UserError(
            f"{what} is an Electric: its generator is two towers ({', '.join(towers)}), which this program does not "
            "compute"
        )
    if f"{_SHARED}embeddings/word_embeddings" not in stored:
        raise UserError(f"{what} has no {_SHARED}embeddings/word_embeddings; it is no ELECTRA")
    found = {}
    if any(name.startswith(_DETECTION) for name in stored):
        found["discriminator"] = _network(stored, (_SHARED, _DETECTION))
    if any(name.startswith(_PREDICTION) for name in stored):
        own = any(name.startswith(f"{_OWN}encoder/") for name in stored)
        network = _network(stored, (_OWN if own else _SHARED, _PREDICTION))
        if own and f"{_OWN}embeddings/word_embeddings" not in stored:
            embeddings = _network(stored, (f"{_SHARED}embeddings/",))
            network = Tensors({**embeddings.stored(), **network.stored()})
        found["generator"] = network
    return found


def encoder(tensors: Tensors) -> Tensors:
    """The encoder under electra/ by PyTorch's names, whatever heads are on it."""
    stored = {
        name: value
        for name, value in tensors.stored().items()
        if not name.endswith(tuple(MOMENTS.values()))
    }
    return _network(stored, (_SHARED,))


def step(tensors: Tensors) -> int:
    """Steps that the checkpoint's training had done; 0 where it does not say."""
    return int(tensors[STEP]) if STEP in tensors else 0


def hparams(folder: Path) -> dict[str, Any]:
    """The hparams.json beside a checkpoint, with its overrides of the model in place; empty where there is none."""
    if not (folder / HPARAMS).is_file():
        return {}
    found = records.read(folder / HPARAMS)
    over = found.get("model_hparam_overrides")
    return {**found, **(over if isinstance(over, dict) else {})}


def config(tensors: Tensors, architecture: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json that a network's shapes amount to; heads by `settings` (hparams.json), else of 64 channels."""
    shapes = tensors.shapes()
    vocab, embedding = shapes["electra.embeddings.word_embeddings.weight"]
    layers = {m[1] for name in shapes if (m := re.match(r"electra\.encoder\.layer\.(\d+)\.", name))}
    dense = shapes.get("electra.encoder.layer.0.intermediate.dense.weight", (0, embedding))
    width = dense[1]
    heads = settings.get("num_attention_heads")
    if not isinstance(heads, int) or architecture == "ElectraForMaskedLM":
        heads = max(1, width // HEAD_WIDTH)
    return {
        "architectures": [architecture],
        "model_type": "electra",
        "vocab_size": vocab,
        "embedding_size": embedding,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "intermediate_size": dense[0],
        "max_position_embeddings": shapes["electra.embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shapes["electra.embeddings.token_type_embeddings.weight"][0],
    }


def _network(stored: Mapping[str, Stored], begins: tuple[str, ...]) -> Tensors:
    found = {}
    for name, value in stored.items():
        begin = next((b for b in begins if name.startswith(b)), None)
        if begin is not None:
            kernel = name.endswith("/kernel")
            found[_pytorch(name)] = value.transposed() if kernel else value
    return Tensors(found)


def _pytorch(name: str) -> str:
    """PyTorch's name of a variable, as transformers' conversion had it."""
    if name == f"{_PREDICTION}output_bias":
        return "generator_lm_head.bias"
    name = re.sub(rf"^({_SHARED}|{_OWN})", "electra/", name)
    name = name.replace(
        "discriminator_predictions/dense_1/", "discriminator_predictions/dense_prediction/"
    )
    name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name)
    name = re.sub(r"/(kernel|gamma)$", "/weight", name)
    name = re.sub(r"/beta$", "/bias", name)
    name = re.sub(r"(_embeddings)$", r"\1/weight", name)
    return name.replace("/", ".")
