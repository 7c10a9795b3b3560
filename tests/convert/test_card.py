"""Model cards: what they must say, and front matter that a parser takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from electra_jax.convert import hf
from electra_jax.convert.card import Facts, card
from electra_jax.convert.folder import DISCRIMINATOR, MASKED_LM
from electra_jax.convert.names import Shape
from electra_jax.model.electra import Dimensions

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


@pytest.mark.parametrize(
    ("role", "architecture", "pipeline"),
    [
        ("discriminator", DISCRIMINATOR, "feature-extraction"),
        ("generator", MASKED_LM, "fill-mask"),
        ("model", MASKED_LM, "fill-mask"),
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


def test_a_card_of_little_knowledge_has_no_empty_tables() -> None:
    """Headings over nothing for a model that was imported and never trained."""
    text = card("discriminator", DISCRIMINATOR, SHAPE, 1, Facts())
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
