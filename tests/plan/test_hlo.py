"""Compiled HLO as text: how often what runs, how large arrays are, where they come from."""

import pytest

from electra_jax.plan.hlo import arrays, parse


@pytest.mark.parametrize(
    ("text", "bytes", "allocated", "in_hbm"),
    [
        ("f32[30592,32]{0,1:T(8,128)}", 30592 * 32 * 4, 30592 * 32 * 4, True),
        ("f32[30592,32]{1,0:T(8,128)}", 30592 * 32 * 4, 30592 * 128 * 4, True),
        ("s32[1,128,1]{1,2,0:T(1,128)S(1)}", 512, 512, False),
        ("bf16[12,100]{1,0:T(8,128)(2,1)}", 2400, 16 * 128 * 2, True),
        ("pred[]{:T(512)}", 1, 1, True),
        ("s4[3]{0}", 2, 2, True),
        ("f8e4m3fn[8]{0:S(0)}", 8, 8, True),
        ("f32[0]{0}", 0, 0, True),
    ],
)
def test_sizes(text, bytes, allocated, in_hbm):
    """Catches bytes that forget a dtype, a tile's padding in the layout's order, or the memory an array lies in."""
    (array,) = arrays(text)
    assert (array.bytes, array.allocated, array.in_hbm) == (bytes, allocated, in_hbm)


def test_a_tuple_is_its_arrays(tpu):
    """Catches a type whose comments, layouts or brackets are taken for something else."""
    entry = parse(tpu).computations["main_spmd"]
    assert [str(a) for a in entry["permute-start"].outputs] == [
        "f32[128,64]",
        "f32[128,64]",
        "u32[]",
        "u32[]",
    ]
    assert entry["loop"].opcode == "while" and entry["loop"].operands == ("state.1",)
    assert entry["tuple.1"].root and entry["kernel"].target == "tpu_custom_call"


def test_a_loop_runs_its_body_as_often_as_it_turns(tpu):
    """Catches loops counted once, as XLA's own analysis does, and reductions' bodies taken for control flow."""
    module = parse(tpu)
    assert module.runs == {"main_spmd": 1, "body": 3, "condition": 4}
    assert module.fused == {"fused_computation": 3, "fused_update": 1}
    noted = tpu.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"12"}}')
    assert parse(noted).runs["body"] == 12


def test_a_loop_that_cannot_be_read_is_named(tpu):
    """Catches a guess of a trip count that nobody is told about."""
    module = parse(tpu.replace("direction=LT", "direction=NE"))
    assert module.unknown_loops == ("loop",) and module.runs["body"] == 1
    assert parse(tpu).unknown_loops == ()


@pytest.mark.parametrize(("first", "shift"), [("parent_frame_id=1", 0), ("parent_frame_id=0", 1)])
def test_the_line_is_ours(tpu, first, shift):
    """Catches operations that are laid at a library's door, and a chain of frames that is off by one."""
    if shift:  # as versions print it that count parents as they count frames
        for old, new in ((1, 0), (2, 1)):
            tpu = tpu.replace(f"parent_frame_id={old}", f"parent_frame_id={new}")
    assert first in tpu
    module = parse(tpu)
    entry, body = module.computations["main_spmd"], module.computations["body"]
    assert str(module.source(body["product"])) == "electra_jax/ops/vocab_head.py:46 vocabulary_head"
    assert str(module.source(entry["scores"])) == "electra_jax/learn/step.py:61 train_step"
    assert module.source(entry["kernel"]) is None
    other = module.source(entry["scores"], prefer="nowhere/")
    assert str(other) == "optax/tree_utils/_tree_math.py:187 tree_sum"


def test_what_is_no_program_is_refused():
    """Catches a report of zeros for text that was cut off or is something else."""
    with pytest.raises(ValueError, match="ENTRY"):
        parse("HloModule jit_f\n")
