"""The model card: what an exported model is, what it saw, how it scored, and how to use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from electra_jax.convert.folder import MASKED_LM
from electra_jax.convert.names import Shape

USE = {
    True: "from transformers import pipeline\n"
    'fill = pipeline("fill-mask", model="PATH")\n'
    'print(fill(f"The capital of France is {fill.tokenizer.mask_token}."))',
    False: "import torch\n"
    "from transformers import AutoModelForPreTraining, AutoTokenizer\n"
    'tokenizer = AutoTokenizer.from_pretrained("PATH")\n'
    'model = AutoModelForPreTraining.from_pretrained("PATH")\n'
    'inputs = tokenizer("The quick brown fox ate over the lazy dog", return_tensors="pt")\n'
    "with torch.no_grad():\n"
    "    score = torch.sigmoid(model(**inputs).logits)[0]  # how likely each token was replaced",
}
WHAT = {
    "discriminator": "the discriminator of an ELECTRA pair: it tells, for every token, whether it was"
    " replaced. It is the model to fine-tune",
    "generator": "the generator of an ELECTRA pair: a small masked language model that proposes the"
    " replacements. Fine-tune the discriminator instead",
    "model": "an ELECTRA-shaped encoder trained as a masked language model",
}


@dataclass(frozen=True)
class Facts:
    """What is known of a run; empty parts are left out of the card."""

    step: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # dotted config key -> value
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""  # a sentence on imported weights


def card(role: str, architecture: str, shape: Shape, parameters: int, facts: Facts) -> str:
    """README.md of one exported model. `role` is "discriminator", "generator" or "model"."""
    generator = architecture == MASKED_LM
    head = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {'fill-mask' if generator else 'feature-extraction'}",
        "tags:",
        "- electra",
        "- electra_jax",
        f"- {'masked-language-modeling' if generator else 'replaced-token-detection'}",
        "# Fill in what only you know: language (for example `language: en`) and license.",
        "---",
    ]
    body = [
        f"# ELECTRA {role}",
        f"This is {WHAT[role]}. Pretrained with electra_jax ([ELECTRA, Clark et al., "
        "2020](https://arxiv.org/abs/2003.10555)).",
        _table("Model", _model_rows(architecture, shape, parameters)),
    ]
    if facts.origin:
        body.append(f"## Origin\n\n{facts.origin}")
    if facts.step is not None:
        body.append(_table("Training", {"steps": facts.step, **facts.settings}))
    if facts.data:
        body.append(_table("Data", facts.data))
    if facts.metrics:
        body.append(_table("Held-out metrics", {k: f"{v:.6g}" for k, v in facts.metrics.items()}))
    body.append("## Use\n\n```python\n" + USE[generator] + "\n```")
    if facts.commands:
        body.append("## Made by\n\n```\n" + "\n".join(facts.commands) + "\n```")
    if facts.versions:
        body.append(_table("Versions", facts.versions))
    return "\n".join(head) + "\n\n" + "\n\n".join(body) + "\n"


def _model_rows(architecture: str, shape: Shape, parameters: int) -> dict[str, Any]:
    return {
        "class": f"`{architecture}`",
        "parameters": f"{parameters:,}",
        "layers": shape.layers,
        "width": shape.width,
        "heads": shape.heads,
        "feed-forward width": shape.ffn,
        "embedding width": shape.embedding,
        "positions": shape.positions,
        "vocabulary": f"{shape.vocab:,}",
    }


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return f"## {title}\n\n| | |\n| --- | --- |\n" + "\n".join(lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
