"""The model card: what an exported model is, what it saw, how it scored, and how to use it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from electra_jax.convert.entries import Border, Shape
from electra_jax.convert.example import Example
from electra_jax.convert.names import BORDERS
from electra_jax.model.options import ELECTRA, MODERN
from electra_jax.objective.export import DETECTION, ENCODER, MASKED_LM, Export
from electra_jax.spec import UserError

# Names of what needs no network; a metric `x` has theirs as `x_unigram`, `x_bigram`.
BASELINES = ("unigram", "bigram")

# What a model of this role is for: the pipeline of the Hub, and a tag.
_KINDS = {
    DETECTION: ("feature-extraction", ("replaced-token-detection",)),
    MASKED_LM: ("fill-mask", ("masked-language-modeling",)),
    ENCODER: ("feature-extraction", ()),
}
_TOKENS = BORDERS[MODERN].classes[DETECTION]


@dataclass(frozen=True)
class About:
    """What only the maker knows of a model: languages as the Hub names them ("ko", "de"), and the license."""

    languages: tuple[str, ...] = ()
    license: str = ""

    def __post_init__(self) -> None:
        for code in self.languages:
            if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*|multilingual|code", code):
                raise UserError(
                    f"language {code!r} is no code; give those of ISO 639, such as de or pt-BR"
                )
        if not re.fullmatch(r"([a-z0-9][a-z0-9.\-]*)?", self.license):
            raise UserError(
                f"license {self.license!r} is no identifier of the Hub, such as apache-2.0, cc-by-sa-4.0 or other"
            )

    @classmethod
    def of(cls, language: str | None, license: str | None) -> "About":
        """From flags: languages separated by commas. Raises UserError for what the Hub would not take."""
        codes = (code.strip() for code in (language or "").split(","))
        return cls(tuple(code for code in codes if code), license or "")

    def matter(self) -> list[str]:
        """The lines of the front matter; a comment says what is missing."""
        lines, missing = [], []
        if self.languages:
            lines += ["language:", *(f"- {_quoted(code)}" for code in self.languages)]
        else:
            missing.append("--language")
        if self.license:
            lines.append(f"license: {self.license}")
        else:
            missing.append("--license")
        if missing:
            lines.append(f"# Not known here: export again with {' and '.join(missing)}.")
        return lines


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
    example: Example | None = None  # of the held-out text
    about: About = About()


def card(export: Export, shape: Shape, parameters: int, facts: Facts) -> str:
    """README.md of one exported model."""
    pipeline, tags = _KINDS[export.hf_class]
    border = BORDERS[shape.family]
    if border.classes[export.hf_class] == _TOKENS:
        pipeline = "token-classification"
    use = _use(export.hf_class, border, facts.example)
    head = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {pipeline}",
        "tags:",
        "- electra",
        *([] if shape.family == ELECTRA else [f"- {border.model_type}"]),
        "- electra_jax",
        *(f"- {tag}" for tag in tags),
        *facts.about.matter(),
        "---",
    ]
    body = [
        f"# ELECTRA {export.name}",
        f"This is {export.what}. Pretrained with electra_jax ([ELECTRA, Clark et al., "
        "2020](https://arxiv.org/abs/2003.10555)).",
        _table("Model", _model_rows(border.classes[export.hf_class], shape, parameters)),
    ]
    if facts.origin:
        body.append(f"## Origin\n\n{facts.origin}")
    if facts.step is not None:
        body.append(_table("Training", {"steps": facts.step, **facts.settings}))
    if facts.data:
        body.append(_table("Data", facts.data))
    if facts.metrics:
        body.append(_metrics(facts.metrics))
    body.append("## Use\n\n```python\n" + use + "\n```")
    if facts.commands:
        body.append("## Made by\n\n```\n" + "\n".join(facts.commands) + "\n```")
    if facts.versions:
        body.append(_table("Versions", facts.versions))
    return "\n".join(head) + "\n\n" + "\n\n".join(body) + "\n"


def _metrics(metrics: Mapping[str, float]) -> str:
    """The model's figures, beside each what counting tokens reaches on the same rows where that is known."""
    own = {k: v for k, v in metrics.items() if not k.endswith(tuple(f"_{b}" for b in BASELINES))}
    known = [b for b in BASELINES if any(f"{name}_{b}" in metrics for name in own)]
    lines = [f"| | {' | '.join(('model', *known))} |" if known else "| | |"]
    lines.append("| --- " * (2 + len(known)) + "|")
    for name, value in own.items():
        beside = [metrics.get(f"{name}_{b}") for b in known]
        cells = [f"{value:.6g}", *("" if x is None else f"{x:.6g}" for x in beside)]
        lines.append(f"| {_cell(name)} | {' | '.join(cells)} |")
    if known:
        said = (
            "unigram, bigram: what counting tokens of the training text reaches on the same rows."
        )
        lines = [said, "", *lines]
    return "## Held-out metrics\n\n" + "\n".join(lines)


def _use(hf_class: str, border: Border, example: Example | None) -> str:
    """Python that runs the model, on the example where there is one."""
    if hf_class == MASKED_LM:
        shown = _string(example.masked) if example else None
        other = 'f"A text with {fill.tokenizer.mask_token} in place of a word."'
        return (
            "from transformers import pipeline\n"
            'fill = pipeline("fill-mask", model="PATH")\n'
            f"print(fill({shown or other}))"
        )
    shown = _string(example.text if example else "A text in the language of the model.")
    if hf_class == ENCODER:
        return (
            "import torch\n"
            "from transformers import AutoModel, AutoTokenizer\n"
            'tokenizer = AutoTokenizer.from_pretrained("PATH")\n'
            'model = AutoModel.from_pretrained("PATH")\n'
            f'inputs = tokenizer({shown}, return_tensors="pt")\n'
            "with torch.no_grad():\n"
            "    hidden = model(**inputs).last_hidden_state[0]  # a vector for each token"
        )
    auto, score = "AutoModelForPreTraining", "torch.sigmoid(model(**inputs).logits)[0]"
    if border.classes[hf_class] == _TOKENS:
        auto, score = (
            "AutoModelForTokenClassification",
            "model(**inputs).logits.softmax(-1)[0, :, 1]",
        )
    return (
        "import torch\n"
        f"from transformers import {auto}, AutoTokenizer\n"
        'tokenizer = AutoTokenizer.from_pretrained("PATH")\n'
        f'model = {auto}.from_pretrained("PATH")\n'
        f'inputs = tokenizer({shown}, return_tensors="pt")\n'
        "with torch.no_grad():\n"
        f"    score = {score}  # how likely each token was replaced"
    )


def _string(text: str) -> str:
    """A literal of Python."""
    return json.dumps(text, ensure_ascii=False)


def _quoted(code: str) -> str:
    """A code as YAML takes it: `no` would be false."""
    return f'"{code}"' if code in ("no", "on", "y", "n", "yes", "off") else code


def _model_rows(architecture: str, shape: Shape, parameters: int) -> dict[str, Any]:
    reach = {}
    if shape.local_attention:
        reach = {
            "global layers": f"of every {shape.global_attn_every_n_layers} layers the first",
            "local attention": f"{shape.local_attention} tokens",
        }
    return {
        "class": f"`{architecture}`",
        "parameters": f"{parameters:,}",
        "layers": shape.layers,
        "width": shape.width,
        "heads": shape.heads,
        "feed-forward width": shape.ffn,
        **reach,
        "embedding width": shape.embedding,
        "positions": shape.positions,
        "vocabulary": f"{shape.vocab:,}",
    }


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return f"## {title}\n\n| | |\n| --- | --- |\n" + "\n".join(lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
