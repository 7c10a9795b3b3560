"""Model cards: what they must say, and front matter that a parser takes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from electra_jax.convert import hf
from electra_jax.convert.card import About, Facts
from electra_jax.convert.card import card as card_of
from electra_jax.convert.entries import Shape
from electra_jax.convert.example import Example
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.objective.export import DETECTION, ENCODER, MASKED_LM, Export
from electra_jax.spec import UserError, load_config

SHAPE = Shape(vocab=100, embedding=16, width=32, heads=2, ffn=64, layers=2, positions=40, types=2)
FACTS = Facts(
    step=1000,
    data={"fingerprint": "`abc`", "train rows": "5,000"},
    metrics={"mlm_loss": 3.25, "disc_auc": 0.875},
    settings={"optim.peak_lr": 3e-4},
    commands=["electra-jax pretrain --workdir run"],
    versions={"jax": "0.10"},
    origin="Training started from imported weights: `a|b`.",
)


def card(name: str, hf_class: str, shape: Shape, parameters: int, facts: Facts) -> str:
    spec = Dimensions(ModelSpec(**load_config("tiny").model.to_dict()), 100).discriminator
    export = Export(name=name, hf_class=hf_class, spec=spec, what="a model")
    return card_of(export, shape, parameters, facts)


@pytest.mark.parametrize(
    ("role", "architecture", "pipeline"),
    [
        ("discriminator", DETECTION, "feature-extraction"),
        ("generator", MASKED_LM, "fill-mask"),
        ("model", MASKED_LM, "fill-mask"),
        ("encoder", ENCODER, "feature-extraction"),
    ],
)
def test_front_matter_is_yaml_and_the_facts_are_there(
    role: str, architecture: str, pipeline: str
) -> None:
    """Front matter the Hub cannot parse, or a card that leaves out what the run knows."""
    text = card(role, architecture, SHAPE, 12345, FACTS)
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["library_name"] == "transformers" and matter["pipeline_tag"] == pipeline
    assert "electra" in matter["tags"] and "language" not in matter
    for said in ("12,345", "1000", "`abc`", "5,000", "3.25", "0.875", "0.0003", "--workdir run"):
        assert said in body, said
    assert f"`{architecture}`" in body and "imported weights" in body


def test_what_the_maker_says_is_front_matter() -> None:
    """Languages and a license that the Hub does not find, `no` read as false, and a guess printed as a fact."""
    facts = replace(FACTS, about=About.of("de, no", "cc-by-sa-4.0"))
    _, front, _ = card("model", MASKED_LM, SHAPE, 1, facts).split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["language"] == ["de", "no"] and matter["license"] == "cc-by-sa-4.0"
    assert "Not known" not in front
    _, front, _ = card("model", MASKED_LM, SHAPE, 1, Facts()).split("---\n", 2)
    assert "export again with --language and --license" in front
    for language, license in (("German", ""), ("d", ""), ("de", "my own"), ("de", "MIT\nx: y")):
        with pytest.raises(UserError):
            About.of(language, license)


def test_the_example_is_of_the_data() -> None:
    """An English sentence on the card of a Korean model."""
    shown = Example("두 종류가 있다.", "두 [MASK] 있다.")
    for architecture, said in ((MASKED_LM, shown.masked), (DETECTION, shown.text)):
        text = card("model", architecture, SHAPE, 1, replace(FACTS, example=shown))
        assert f'"{said}"' in text and "France" not in text
        assert "France" not in card("model", architecture, SHAPE, 1, FACTS)


def test_baselines_stand_beside_the_figures() -> None:
    """A loss of 6 that looks like learning, where counting words reaches 5."""
    metrics = {"mlm_loss": 6.0, "mlm_loss_unigram": 5.5, "mlm_loss_bigram": 5.0, "disc_auc": 0.5}
    text = card("model", MASKED_LM, SHAPE, 1, replace(FACTS, metrics=metrics))
    assert "| | model | unigram | bigram |\n| --- | --- | --- | --- |" in text
    assert "| mlm_loss | 6 | 5.5 | 5 |" in text and "| disc_auc | 0.5 |  |  |" in text


def test_a_card_of_little_knowledge_has_no_empty_tables() -> None:
    """Headings over nothing for a model that was imported and never trained."""
    text = card("discriminator", DETECTION, SHAPE, 1, Facts())
    assert "## Training" not in text and "## Held-out" not in text and "## Data" not in text


def test_every_exported_folder_has_its_card(
    tmp_path: Path,
    make_dims: Callable[..., Dimensions],
    make_workdir: Callable[..., Path],
    small_vocabulary: object,
) -> None:
    """One card for both, or a card with another model's numbers."""
    dims = make_dims(vocab_size=small_vocabulary.size)  # type: ignore[attr-defined]
    hf.export(make_workdir(tmp_path / "run", dims), tmp_path / "hf")
    cards = {p.parent.name: p.read_text() for p in (tmp_path / "hf").glob("*/README.md")}
    assert cards.keys() == {"discriminator", "generator"}
    assert "# ELECTRA discriminator" in cards["discriminator"]
    assert "| width | 32 |" in cards["discriminator"] and "| width | 16 |" in cards["generator"]
    assert "Imported from `nowhere`" in cards["generator"]
