"""GPUs by name, their rates, and what is read off a program compiled for them."""

import json
import os
import subprocess
import sys

import pytest

from electra_jax.learn import hardware
from electra_jax.plan import gpu
from electra_jax.plan.chips import GPUS
from electra_jax.plan.cost import seconds
from electra_jax.plan.weighed import weigh_text
from electra_jax.spec import UserError

KERNEL = """
HloModule step
ENTRY %main (p0: u32[64], p1: bf16[64,128,768], p2: bf16[64,128,768]) -> bf16[64,128,256] {
  %p0 = u32[64]{0} parameter(0)
  %p1 = bf16[64,128,768]{2,1,0} parameter(1)
  %p2 = bf16[64,128,768]{2,1,0} parameter(2)
  ROOT %k = bf16[64,128,256]{2,1,0} custom-call(%p0, %p1, %p2), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(train_step)/layer_0/attention_forward/pallas_call"}
}
"""  # noqa: E501 - a line of the compiler's


def test_names():
    """Catches one GPU taken for eight, and a box of sixteen."""
    assert gpu.parse("h100") == gpu.parse("h100-1") == gpu.Box("h100", 1)
    assert gpu.parse("h200:8").name == "h200-8"
    assert gpu.parse("v5e-8") is None and gpu.parse("h1000") is None
    for wrong in ("h100-0", "h100-9"):
        with pytest.raises(UserError, match="1 to 8 GPUs"):
            gpu.parse(wrong)
    assert all(hardware.peak_of(one.kind) for one in GPUS.values())


def test_kernels_have_their_products():
    """Catches kernels for GPUs that pass for no work, because Triton lets them declare none."""
    (kernel,) = weigh_text(KERNEL).kernels
    assert kernel.flops == 2 * 2 * 64 * 128**2 * 256
    one, eight = (gpu.machine(gpu.Box("h100", n)) for n in (1, 8))
    assert one.egress == 0 and eight.egress > 0
    assert seconds(kernel, one) > kernel.flops / one.peak + kernel.bytes / one.bandwidth


def test_without_the_compiler_there_is_one_line(monkeypatch):
    """Catches a traceback where the CUDA plugin is not installed."""
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'electra_jax\[cuda\]'"):
        gpu.devices(gpu.Box("h100", 8))


@pytest.mark.slow
@pytest.mark.skipif(not gpu.installed(), reason="no GPU compiler; pip install -e '.[test-cuda]'")
def test_a_step_compiled_for_gpus():
    """Catches a step that is not planned as it compiles: on eight cards, with the gradient's exchange."""
    typed = [sys.executable, "-m", "electra_jax", "plan", "--config", "small", "--compiles", "1"]
    more = ["--topology", "h100-8", "--config.model.layers=1", "--json"]
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run([*typed, *more], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["mesh"] == {"data": 8, "fsdp": 1} and plan["chips"] == 8
    assert plan["time"]["kernels_s"] > 0 and 0 < plan["run"]["mfu"] < 1
    assert plan["time"]["exposed_exchange_s"] > 0
    assert 1 <= plan["flops"]["executed"] / plan["flops"]["useful"] < 1.5
    assert plan["run"]["money"]["on_demand"] == pytest.approx(plan["run"]["chip_hours"] * 2.95)
