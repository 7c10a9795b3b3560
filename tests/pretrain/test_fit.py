"""What a step needs, what a device has, and the advice when the one is more than the other."""

from types import SimpleNamespace

import jax
import pytest

from electra_jax.learn import mesh
from electra_jax.pretrain import fit, program
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError


def phase(batch: int, accumulation: int = 1) -> SimpleNamespace:
    return SimpleNamespace(batch=batch, accumulation=accumulation)


def linear(fixed: int, row: int, row_with_remat: int, asked: list):
    def need(rows: int, remat: str) -> int:
        asked.append((rows, remat))
        return fixed + rows * (row_with_remat if remat == "layer" else row)

    return need


def test_advice_finds_the_largest_batch_that_fits():
    """Catches advice that does not fit, is far from the largest that does, does not divide among the
    devices, or spends more compilations than promised."""
    asked: list = []
    need = linear(1000, 100, 40, asked)
    said = fit.advice(need, 8000, need(128, "none"), phase(128), "none", 8)
    batch = int(said.partition("train.batch=")[2].split()[0].rstrip(",)"))
    assert batch % 8 == 0 and 0.8 * 70 < batch <= 70
    assert "remat=layer" in said
    # The same batch in parts: parts that divide it, each no larger than what fits.
    parts = int(said.partition("accumulation=")[2].split()[0])
    assert 128 % parts == 0 and 128 // parts <= 70 and 128 // parts % 8 == 0
    assert len(asked) - 1 <= fit.MOST_TRIES


def test_advice_does_not_promise_what_does_not_fit():
    """Catches recomputation recommended though it does not fit, and a batch when the parameters alone
    are too large."""
    need = linear(9000, 100, 90, [])
    said = fit.advice(need, 8000, need(128, "none"), phase(128), "none", 8)
    assert "remat" not in said and "train.batch" not in said and "fsdp" in said
    need = linear(0, 100, 90, [])
    assert "remat" not in fit.advice(need, 8000, need(128, "none"), phase(128), "none", 8)
    assert "remat" not in fit.advice(need, 8000, need(128, "layer"), phase(128), "layer", 8)


def test_a_step_that_does_not_fit_is_refused_with_figures(config, prepared, monkeypatch):
    """Catches a step that is only found too large when it runs, and an error without need, limit or way out."""
    run = run_spec(config().to_dict())
    (whole,) = run.phases(prepared)
    built = program.build(run, whole, mesh.build(run.mesh))
    monkeypatch.setattr(fit, "MOST_TRIES", 0)
    monkeypatch.setattr(fit, "capacity", lambda mesh: 2**10)
    monkeypatch.setattr(fit, "advice", lambda *_: "what fits: less")
    small = SimpleNamespace(
        memory_analysis=lambda: SimpleNamespace(
            argument_size_in_bytes=2**31,
            temp_size_in_bytes=2**30,
            output_size_in_bytes=2**31,
            alias_size_in_bytes=2**31,
        )
    )
    monkeypatch.setattr(program.Program, "compile_train_step", lambda self: small)
    with pytest.raises(
        UserError, match=r"8 rows of 32 tokens needs 3.00 GiB .* 0.00 GiB; what fits"
    ):
        fit.compile_that_fits(run, whole, built)
    monkeypatch.setattr(fit, "capacity", lambda mesh: 2**32)
    assert fit.compile_that_fits(run, whole, built) is small


def test_a_compiler_that_refuses_the_size_is_understood(monkeypatch, config, prepared):
    """Catches a raw RESOURCE_EXHAUSTED where the compiler itself finds the step too large, as on TPU,
    and another failure taken for it."""
    run = run_spec(config().to_dict())
    (whole,) = run.phases(prepared)
    built = program.build(run, whole, mesh.build(run.mesh))
    monkeypatch.setattr(fit, "advice", lambda *_: "what fits: less")
    monkeypatch.setattr(fit, "capacity", lambda mesh: 16 * 2**30)

    def refuse(message):
        def compile_train_step(self):
            raise jax.errors.JaxRuntimeError(message)

        return compile_train_step

    text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.90G of 15.75G hbm."
    monkeypatch.setattr(program.Program, "compile_train_step", refuse(text))
    with pytest.raises(UserError, match=r"needs 20.90 GiB on each device, which has 16.00 GiB"):
        fit.compile_that_fits(run, whole, built)
    monkeypatch.setattr(program.Program, "compile_train_step", refuse("INTERNAL: broken"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        fit.compile_that_fits(run, whole, built)


def test_the_machine_has_memory(config):
    """Catches a limit in other units, and devices that each claim the whole machine."""
    devices = mesh.build(run_spec(config().to_dict()).mesh)
    assert 2**26 < fit.capacity(devices) < 2**45
    assert fit.capacity(devices) * devices.size <= fit._machine_memory()
