"""Addressed noise: as good as independent, and the same wherever and however it is computed."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy import stats

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise

# Every statistical test has fixed keys, so it cannot flicker; a limit of 5 deviations (p = 6e-7)
# leaves room for the number of tests there are.
SIGMAS = 5.0
ROWS, COUNT = 64, 1 << 14


at = jax.jit(Noise.at, static_argnums=1)
bits = jax.jit(lambda noise, n: noise_ops.bits(noise, noise_ops.count(n)), static_argnums=1)
uniform = jax.jit(lambda noise, n: noise_ops.uniform(noise, noise_ops.count(n)), static_argnums=1)


@functools.partial(jax.jit, static_argnums=0)
def _make(rows: int, seed: jax.Array, step: jax.Array) -> Noise:
    return noise_ops.for_rows(jax.random.fold_in(jax.random.key(seed), step), jnp.arange(rows))


def make(rows: int = ROWS, seed: int = 0, step: int = 0) -> Noise:
    return _make(rows, seed, step)


@functools.cache
def numbers(seed: int = 0, step: int = 0, sites: tuple[int, ...] = ()) -> np.ndarray:
    """Uniforms [ROWS, COUNT] at a site (of a site), centred and scaled to variance 1."""
    noise = make(seed=seed, step=step)
    for site in sites:
        noise = at(noise, site)
    return (np.asarray(uniform(noise, COUNT), np.float64) - 0.5) * np.sqrt(12)


def correlated(x: np.ndarray, y: np.ndarray) -> float:
    """The correlation of two samples in deviations from none."""
    return abs(float(np.sum(x * y))) / np.sqrt(x.size)


def test_uniform_by_chi_square():
    """Catches a mixer that favours some values: 1,024 equal cells over a million numbers of many
    rows, and over a million of one row."""
    for noise, count in ((make(), COUNT), (make(1, seed=1), ROWS * COUNT)):
        drawn = np.asarray(uniform(noise, count)).ravel()
        cells = np.bincount((drawn * 1024).astype(int), minlength=1024)
        assert stats.chisquare(cells).pvalue > 1e-6


def test_every_bit_is_fair():
    """Catches a stuck or biased bit, the low ones included, which `integers` and `dropout` use."""
    drawn = np.asarray(bits(make(), COUNT))
    for bit in range(32):
        ones = int(((drawn >> np.uint32(bit)) & 1).sum())
        assert abs(ones - drawn.size / 2) < SIGMAS * np.sqrt(drawn.size) / 2, bit


@pytest.mark.parametrize("word", [0, 1, 0xFFFFFFFF, 0xFFFFFE00, 0xFFFFFEFF, 0x80000000])
def test_uniform_never_reaches_0_or_1(word: int, monkeypatch: pytest.MonkeyPatch):
    """Catches rounding to exactly 1 (or 0), as happens with 24 bits plus a half in float32: the
    Gumbel noise is then infinite, that id is drawn whatever its logit, and a padded id's sum with
    -inf is NaN, which argmax prefers."""
    monkeypatch.setattr(noise_ops, "bits", lambda noise, counter: jnp.full((1, 1), word, "uint32"))
    drawn = np.asarray(noise_ops.uniform(make(1), noise_ops.count(1)))
    assert drawn.dtype == np.float32
    assert 0 < drawn[0, 0] < 1
    assert np.isfinite(noise_ops.gumbel(make(1), noise_ops.count(1))).all()


PAIRS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "neighbouring rows": lambda: (numbers()[:-1], numbers()[1:]),
    "neighbouring elements": lambda: (numbers()[:, :-1], numbers()[:, 1:]),
    "elements a power of two apart": lambda: (
        numbers()[:, : COUNT // 2],
        numbers()[:, COUNT // 2 :],
    ),
    "a row of the next step": lambda: (numbers(), numbers(step=1)),
    "another seed": lambda: (numbers(), numbers(seed=1)),
    "a site and the next": lambda: (numbers(sites=(0,)), numbers(sites=(1,))),
    "a site and where it comes from": lambda: (numbers(), numbers(sites=(0,))),
    "a site of a site, in the other order": lambda: (
        numbers(sites=(0, 1)),
        numbers(sites=(1, 0)),
    ),
    "a row's site and the next row's": lambda: (
        numbers(sites=(0,))[1:],
        numbers(sites=(1,))[:-1],
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_uncorrelated(name: str):
    """Catches an address that does not reach the hash, or reaches it so that streams overlap."""
    x, y = PAIRS[name]()
    assert correlated(x, y) < SIGMAS
    # Of the extremes too: dropout and samples depend on tails.
    for tail in (1.55, -1.55):  # beyond it lie 5%
        a, b = (z > tail if tail > 0 else z < tail for z in (x, y))
        spread = (a - a.mean()) / a.std()
        assert correlated(spread, (b - b.mean()) / b.std()) < SIGMAS


def test_runs():
    """Catches a slow drift or an alternation along the elements of a row (Wald and Wolfowitz)."""
    above = numbers() > 0
    runs = (above[:, 1:] != above[:, :-1]).sum()
    n = above[:, 1:].size
    assert abs(runs - n / 2) < SIGMAS * np.sqrt(n) / 2


def test_dropout_has_no_pattern_along_a_line():
    """Catches a mixer to which small differences between places get through: no two places of a line, whatever bits
    their numbers differ in, may be dropped together more or less often than by chance."""
    rows, length = 48, 512
    ones = jnp.ones((rows, length, length))
    kept = jax.jit(lambda noise: noise_ops.dropout(ones, 0.1, noise) > 0)(
        noise_ops.for_rows(jax.random.key(11), jnp.arange(rows))
    )
    z = ((1 - np.asarray(kept, np.float32)) - 0.1).reshape(-1, length) / 0.3

    def transform(
        x: np.ndarray,
    ) -> np.ndarray:  # Walsh and Hadamard's: xor is to it what shifts are to Fourier's
        for half in (1 << bit for bit in range(length.bit_length() - 1)):
            x = x.reshape(len(x), -1, 2, half)
            x = np.stack([x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]], axis=2)
        return x.reshape(len(x), length)

    power = (transform(z).astype(np.float64) ** 2).sum(axis=0, keepdims=True)
    together = (
        transform(power)[0, 1:] / length / np.sqrt(2 * z.size)
    )  # by what places differ in; in deviations
    assert np.abs(together).max() < SIGMAS
    assert abs(together.std() - 1) < SIGMAS / np.sqrt(2 * together.size)


def test_avalanche():
    """Catches an input bit that some output bit does not hear: each flip of a bit of the counter or
    of the key turns each output bit in half of all cases."""
    n = 1 << 12
    draw = np.random.default_rng(0)
    counter, low, high = (draw.integers(0, 2**32, n, dtype=np.uint32) for _ in range(3))
    drawn = jax.jit(
        jax.vmap(
            lambda c, a, b: noise_ops.bits(Noise(a[None], b[None]), c[None].astype("uint32"))[0, 0]
        )
    )
    before = np.asarray(drawn(counter, low, high))
    worst = 0.0
    for part in range(3):
        for bit in range(32):
            inputs = [counter, low, high]
            inputs[part] = inputs[part] ^ np.uint32(1 << bit)
            turned = before ^ np.asarray(drawn(*inputs))
            share = [((turned >> np.uint32(b)) & 1).mean() for b in range(32)]
            worst = max(worst, float(np.abs(np.array(share) - 0.5).max()))
    # 3,072 shares, each with a deviation of 0.0078; the mixer itself is biased by about 0.003.
    assert worst < SIGMAS * 0.5 / np.sqrt(n) + 0.01


def test_no_collisions_between_rows_and_sites():
    """Catches rows or sites that share a key: a thousand rows of ten sites are all different,
    steps too."""
    keys = []
    for step in range(3):
        noise = make(1024, step=step)
        sites = [noise, at(at(noise, 3), 1)] + [at(noise, i) for i in range(8)]
        for low, high in sites:
            keys.append(np.asarray(low, np.uint64) << np.uint64(32) | np.asarray(high))
    assert len(np.unique(np.concatenate(keys))) == sum(len(k) for k in keys)


def test_gumbel_moments():
    """Catches a sign or a missing log: mean, variance and the whole distribution."""
    drawn = jax.jit(lambda noise: noise_ops.gumbel(noise, noise_ops.count(COUNT)))(make())
    gumbel = np.asarray(drawn, np.float64).ravel()
    variance = np.pi**2 / 6
    assert abs(gumbel.mean() - np.euler_gamma) < SIGMAS * np.sqrt(variance / gumbel.size)
    # The fourth central moment of a Gumbel variable is 27/5 of its squared variance.
    assert abs(gumbel.var() - variance) < SIGMAS * variance * np.sqrt(4.4 / gumbel.size)
    assert stats.kstest(gumbel[::7], stats.gumbel_r.cdf).pvalue > 1e-6


@pytest.mark.parametrize("high", [1, 7, 30522])
def test_integers(high: int):
    """Catches a range that is off by one at either end, another dtype, or unequal shares."""
    in_jit = jax.jit(lambda noise: noise_ops.integers(noise, noise_ops.count(COUNT), high))
    drawn = np.asarray(in_jit(make()))
    assert drawn.dtype == np.int32
    assert drawn.min() == 0
    assert drawn.max() == high - 1
    if high > 1:
        assert stats.chisquare(np.bincount(drawn.ravel(), minlength=high)).pvalue > 1e-6


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_dropout_rate_and_scale(rate: float):
    """Catches the rate applied to what is kept, and survivors that are not scaled up."""
    x = np.ones((ROWS, 128, 128), np.float32)
    out = np.asarray(jax.jit(lambda x, noise: noise_ops.dropout(x, rate, noise))(x, make()))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / (1 - rate))}
    dropped = (out == 0).mean()
    assert abs(dropped - rate) < SIGMAS * np.sqrt(rate * (1 - rate) / out.size)
    # Each row, each position and each feature on its own: none is favoured.
    for axes in ((1, 2), (0, 2), (0, 1)):
        shares = (out == 0).mean(axes)
        n = out.size / shares.size
        assert np.abs(shares - rate).max() < SIGMAS * np.sqrt(rate * (1 - rate) / n)


def test_dropout_leaves_alone_what_it_should():
    """Catches dropout without noise (evaluation), or another dtype coming back."""
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert noise_ops.dropout(x, 0.5, None) is x
    assert noise_ops.dropout(x, 0.0, make(2)) is x
    assert noise_ops.dropout(x, 0.5, make(2)).dtype == jnp.bfloat16


def test_dropped_elements_send_no_gradient_and_no_nan():
    """Catches dropout by multiplication, which turns an infinite activation into NaN."""
    drop = jax.jit(lambda x: noise_ops.dropout(x, 0.5, make(4)))
    out = np.asarray(drop(np.full((4, 64), np.inf, np.float32)))
    assert set(np.unique(out)) == {0.0, np.inf}
    gradient = jax.jit(jax.grad(lambda x: drop(x).sum()))(np.ones((4, 64), np.float32))
    assert set(np.unique(gradient)) == {0.0, 2.0}


def test_a_row_has_its_noise_in_any_batch():
    """Catches noise numbered by the place in a micro-batch or shard: rows taken out of order, and
    few at a time, have the bits they have in the whole batch."""

    def drawn(rows: np.ndarray, counter: np.ndarray) -> np.ndarray:
        in_jit = jax.jit(
            lambda rows, counter: noise_ops.bits(
                noise_ops.for_rows(jax.random.key(5), rows).at(3), counter
            )
        )
        return np.asarray(in_jit(rows, counter))

    counter = np.arange(77, dtype=np.uint32).reshape(7, 11)
    whole = drawn(np.arange(32), counter)
    assert whole.shape == (32, 7, 11)
    some = np.array([31, 0, 17, 17])
    assert np.array_equal(drawn(some, counter), whole[some])
    # A tile of the elements, numbered as in the whole.
    assert np.array_equal(drawn(np.arange(32), counter[2:4, 5:9]), whole[:, 2:4, 5:9])


def test_the_same_bits_under_jit_vmap_and_sharding():
    """Catches noise that depends on how the program is compiled or placed."""

    def drawn(rows: jax.Array) -> jax.Array:
        noise = noise_ops.for_rows(jax.random.key(6), rows)
        return noise_ops.bits(noise.at(1), noise_ops.count(33))

    rows = np.arange(16)
    plain = np.asarray(drawn(rows))
    assert np.array_equal(np.asarray(jax.jit(drawn)(rows)), plain)
    one_by_one = jax.jit(jax.vmap(lambda row: drawn(row[None])[0]))(rows)
    assert np.array_equal(np.asarray(one_by_one), plain)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    sharding = NamedSharding(mesh, P(("data", "fsdp")))
    spread = jax.jit(drawn, out_shardings=sharding)(jax.device_put(rows, sharding))
    assert np.array_equal(np.asarray(spread), plain)


def test_element_numbers():
    """Catches strides that let two elements share a number."""
    numbered = noise_ops.count(2, 3, 5)
    assert numbered.dtype == jnp.uint32
    assert np.array_equal(np.asarray(numbered).ravel(), np.arange(30))


def test_every_bit_of_a_seed_counts():
    """Catches two runs of different seeds that draw the same noise, since JAX takes a seed modulo 2**32; and a run
    begun before that goes on with other noise."""
    seeds = (0, 1, 2**32 - 1, 2**32, 5 * 2**32, 2**63 - 1, -(2**40), -(2**63))
    keys = {seed: tuple(jax.random.key_data(noise_ops.seed_key(seed)).tolist()) for seed in seeds}
    assert len(set(keys.values())) == len(seeds)
    for seed in (0, 7, 2**32 - 1, -1):
        assert (
            jax.random.key_data(noise_ops.seed_key(seed))
            == jax.random.key_data(jax.random.key(seed))
        ).all()
