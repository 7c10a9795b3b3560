"""Objectives by name: what a config section must say."""

import pytest

from electra_jax.objective import registry
from electra_jax.spec import UserError

KNOWN = ", ".join(sorted(registry.KNOWN))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("electar", {}, "Did you mean 'electra'"),
        ("mlm", {"temprature": 1.0}, "unknown config key 'objective.temprature'"),
        ("electra", {"temprature": 1.0}, "Did you mean 'objective.temperature'"),
        ("electra", {"temperature": 0.0}, "objective.temperature=0.0 must be above 0"),
        ("electra", {"sampler": "groups"}, "Did you mean 'grouped'"),
        ("electra", {"whole_word": 1}, "expected bool"),
        (None, {}, f"objective.name is missing; expected one of: {KNOWN}"),
    ],
)
def test_mistakes_in_the_section(make_objective, name, changes: dict, message: str):
    """Catches a mistyped name or option that is passed over."""
    with pytest.raises(UserError, match=message):
        make_objective(name, **changes)


def test_a_recipe_changes_its_objective_by_name_alone(make_objective):
    """Catches a config of ELECTRA that cannot be trained as a masked LM without cutting keys."""
    section = {"temperature": 1.0, "discriminator_weight": 50.0, "uniform_generator": False}
    assert make_objective("mlm", **section) == make_objective("mlm")
