"""Every key of a config has a sentence, which is the comment beside its field."""

import dataclasses

from electra_jax.pretrain import described
from electra_jax.pretrain.options import complete
from electra_jax.spec import load_config, shipped_configs


@dataclasses.dataclass
class Base:
    """A dataclass as the options are."""

    one: int  # the first
    # Not beside a field.
    two: tuple[int, ...]  # the second


@dataclasses.dataclass
class More(Base):
    """With a field of its own."""

    three: str = "# no comment"
    four: float = 1.0  # the fourth # and no fifth


def test_the_comment_beside_a_field():
    """Catches comments of neighbours, of other lines, or lost where the formatter wraps a field."""
    found = described.comments(More)
    assert found == {
        "one": "the first",
        "two": "the second",
        "three": "",
        "four": "the fourth # and no fifth",
    }


def test_every_key_of_every_recipe_says_what_it_means():
    """Catches an option without a sentence: write a comment beside its field."""
    for name in set(shipped_configs()) - {"finetune"}:
        config = load_config(name).to_dict()
        keys = described.keys(config)
        assert [key.name for key in keys if not key.sentence or not key.type] == []
        full = complete(config)  # a recipe leaves out the options of what it does not use
        there = {f"{section}.{key}" for section, values in full.items() for key in values}
        assert there == {key.name for key in keys if not key.name.startswith("train.phases[]")}
