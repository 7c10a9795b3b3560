"""Fresh parameters: the same as Flax draws, in fewer draws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.model import initial
from electra_jax.model.electra import Dimensions, Electra, ModelSpec
from electra_jax.ops.noise import seed_key
from electra_jax.spec import load_config


def module(**changes) -> Electra:
    """Both networks of a few layers."""
    sizes = {"layers": 3, "width": 128, "heads": 2, "ffn": 256, "embedding": 64, "positions": 8}
    spec = load_config("small", ["model.generator_size=0.5"]).to_dict()["model"] | sizes
    return Electra(Dimensions(dataclasses.replace(ModelSpec(**spec), **changes), 250))


def same(found, expected) -> None:
    """Equal but for rounding: XLA may contract a product and a sum in one program and not in another."""
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-8), found, expected
    )


@pytest.mark.parametrize("tying", ["embeddings", "none", "all"])
@pytest.mark.parametrize("remat", ["none", "layer"])
def test_parameters_are_those_of_flax(tying: str, remat: str):
    """Catches draws that end in another parameter than the one whose key they had, and a parameter that two networks
    share, which Flax asks for twice."""
    electra = module(tying=tying, remat=remat)
    key = jax.random.key(3)
    expected = jax.jit(lambda: electra.init(key)["params"])()
    same(jax.jit(lambda: initial.fresh(electra, key))(), expected)


@pytest.mark.parametrize("remat", ["none", "layer"])
def test_one_draw_a_shape(remat: str):
    """Catches a draw for every parameter, which takes a GPU's compiler minutes for twelve layers."""
    electra = module(remat=remat)
    program = str(jax.make_jaxpr(lambda: initial.fresh(electra, jax.random.key(0)))())
    params = jax.eval_shape(lambda: initial.fresh(electra, jax.random.key(0)))
    kernels = {x.shape for x in jax.tree.leaves(params) if len(x.shape) > 1}
    assert len(kernels) - 2 <= program.count("erf_inv") <= len(kernels)  # two are drawn otherwise


def test_seeds_side_by_side():
    """Catches draws that several runs in one program share."""
    electra = module()

    def one(seed):
        return initial.fresh(electra, jax.random.key(seed))

    both = jax.jit(jax.vmap(one))(jnp.arange(2))
    for seed in range(2):
        same(jax.tree.map(lambda x, at=seed: x[at], both), jax.jit(one)(seed))


# Of seed 0, row 1: drawn by the code as it was before any of it moved.
DRAWN = {
    "embeddings/word": (0.006912364, -0.019416474, -0.035097741),
    "discriminator/project/kernel": (0.076922059, 0.245059311, -0.153161168),
    "discriminator/layer_1/query/kernel": (0.032738138, 0.015269871, -0.004327285),
    "generator/layer_0/down/kernel": (0.019426137, -0.015901480, -0.005028042),
    "generator_head/dense/kernel": (-0.000125679, -0.008268775, -0.036477063),
}


def test_a_seed_draws_what_it_always_drew():
    """Catches parameters drawn under other keys: a run repeated with a newer version would be another run."""
    dims = Dimensions(ModelSpec(**load_config("tiny").model.to_dict()), 300)
    params = flatten(jax.jit(lambda: initial.fresh(Electra(dims), seed_key(0)))())
    for name, expected in DRAWN.items():
        np.testing.assert_allclose(params[name][1, :3], expected, rtol=1e-5, err_msg=name)
