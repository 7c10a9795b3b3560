"""What is compiled: data that is not there yet, and the compiler's refusal of what is too large."""

import jax
import pytest

from electra_jax.plan.step import check, too_large
from electra_jax.plan.stretches import described
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError, load_config


def test_rows_are_as_long_as_the_recipe_prepares_them():
    """Catches a plan for rows that no reader of the recipe would train on."""
    lengths = {
        name: described(name, "", None, 30522).seq_len for name in ("small", "base", "large")
    }
    assert lengths == {"small": 128, "base": 512, "large": 512}
    data = described("configs/small.py", "", 256, 1000)
    assert (data.seq_len, data.vocab_size) == (256, 1000)


def test_a_recipe_that_does_not_say(tmp_path):
    """Catches a silent guess of the length, on which everything depends."""
    (tmp_path / "mine.py").write_text('"""Mine."""\n')
    with pytest.raises(UserError, match="--seq-len"):
        described(str(tmp_path / "mine.py"), "", None, 30522)


def test_prepared_data_have_the_last_word(tmp_path):
    """Catches a plan for another length than the data's, and a folder that is none."""
    with pytest.raises(UserError):
        described("small", str(tmp_path), None, 30522)


def test_what_does_not_fit_together_is_refused_before_compiling():
    """Catches minutes of compilation before the news that the mesh has another number of devices."""
    devices = jax.devices()[:4]
    data = described("tiny", "", 32, 1000)
    mesh = run_spec(load_config("tiny", ["mesh.data=8"]).to_dict())
    with pytest.raises(UserError, match="4 devices"):
        check(mesh, data, devices)
    batch = run_spec(load_config("tiny", ["train.batch=6"]).to_dict())
    with pytest.raises(UserError, match="6 rows a micro-batch"):
        check(batch, data, devices)


REFUSAL = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.54G \
of 15.75G hbm. Exceeded hbm capacity by 4.79G.

  Largest program allocations in hbm:

  1. Size: 3.00G
     Operator: op_name="jit(train_step)/jvp(Electra)/layer_0/exp" stack_frame_id=7
     Shape: f32[32,12,512,512]{3,2,1,0:T(8,128)}
     Unpadded size: 3.00G

  2. Size: 512.00M
     Shape: bf16[512,512]{1,0}
"""


def test_the_refusal_is_read():
    """Catches a plan that ends with a traceback where its answer is: no, and this is why."""
    found = too_large(REFUSAL)
    assert (found.needed, found.limit) == (round(20.54 * 2**30), round(15.75 * 2**30))
    assert found.largest == (
        "3.00G f32[32,12,512,512] jvp(Electra)/layer_0/exp",
        "512.00M bf16[512,512]",
    )
    short = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (60.42G) "
        "exceeds available HBM (15.75G)."
    )
    assert (too_large(short).needed, too_large(short).limit) == (
        round(60.42 * 2**30),
        round(15.75 * 2**30),
    )
    assert too_large("INTERNAL: something else") is None
