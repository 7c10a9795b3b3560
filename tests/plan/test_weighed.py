"""Weighing compiled programs, a written one and real ones: FLOPs, traffic, collectives, kernels, buffers."""

import jax
import jax.numpy as jnp
import pytest

from electra_jax.plan.weighed import weigh, weigh_text


def by_name(weighed, name):
    (found,) = [o for o in weighed.operations if o.name == name]
    return found


def test_products_in_loops_and_windows(tpu):
    """Catches FLOPs of one turn only, or a batched product counted over the holes of its window."""
    weighed = weigh_text(tpu)
    assert by_name(weighed, "product").flops == 3 * 2 * 128 * 64 * 256
    assert by_name(weighed, "scores").flops == 6 * 2 * 128 * 128 * 32
    assert by_name(weighed, "product").cycles == 1500
    assert weighed.cycles == 1500 + 2000 + 10
    assert weighed.flops == sum(o.flops for o in weighed.operations)


def test_bytes_are_those_of_main_memory(tpu):
    """Catches traffic that counts memory on the core, whole arrays for a changed row, or a copy's done as well."""
    weighed = weigh_text(tpu)
    assert by_name(weighed, "copy-start.1").bytes == 128 * 64 * 4
    assert by_name(weighed, "changed").bytes == (128 + 128 + 128) * 4 + 4
    assert by_name(weighed, "product").bytes == 3 * 4 * (128 * 64 + 64 * 256 + 128 * 256)
    assert "copy-done.1" not in {o.name for o in weighed.operations}


def test_a_kernel_has_what_its_author_declared(tpu):
    """Catches kernels that count as nothing, since the compiler estimates no cycles for them."""
    (kernel,) = weigh_text(tpu).kernels
    assert (kernel.flops, kernel.bytes, kernel.cycles) == (1_000_000, 70_000, None)
    (kernel,) = weigh_text(tpu.replace('"cost_estimate"', '"other"')).kernels
    assert (kernel.flops, kernel.bytes) == (0, 4 * (128 * 64 + 64 * 128))


@pytest.mark.parametrize(
    "groups",
    [
        "mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}",
        "mesh['axis_0'=8,'axis_1'=3], device_ids=([4,2]T(1,0)) {'axis_0'}",
        "[1,8]<=[8]",
        "{{0,1,2,3,4,5,6,7}}",
    ],
)
def test_collectives(tpu, groups):
    """Catches a group read in one of XLA's notations only, and bytes or hidden work that are not the schedule's."""
    old = "mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}"
    permute, reduce = weigh_text(tpu.replace(old, groups)).collectives
    assert (permute.kind, permute.bytes, permute.started) == (
        "collective-permute",
        128 * 64 * 4,
        True,
    )
    assert permute.hidden_cycles == 2000 and permute.sent == permute.bytes
    assert (reduce.kind, reduce.bytes, reduce.started) == ("all-reduce", 128 * 256 * 4, False)
    assert reduce.group == 8 and reduce.sent == 2 * 7 / 8 * reduce.bytes
    assert str(reduce.source) == "electra_jax/learn/step.py:61 train_step"


def test_a_collective_inside_a_wrapper_counts_once(tpu):
    """Catches exchanges that hide in an async wrapper or a fusion, or that are counted there and at the start."""
    wrapper = """
%async (p: f32[128,256]) -> f32[1024,256] {
  %p = f32[128,256]{1,0} parameter(0)
  ROOT %all-gather.9 = f32[1024,256]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}

ENTRY"""
    text = tpu.replace("\nENTRY", wrapper).replace(
        "  %kernel =",
        "  %s = ((f32[128,256]{1,0}), f32[1024,256]{1,0}, u32[]) async-start(%sum), calls=%async\n"
        "  %d = f32[1024,256]{1,0} async-done(%s)\n  %kernel =",
    )
    (gather,) = [c for c in weigh_text(text).collectives if c.kind == "all-gather"]
    assert (gather.bytes, gather.group, gather.started) == (1024 * 256 * 4, 8, True)


def test_a_chain_of_fusions_is_one_exchange(tpu):
    """Catches a gather that a TPU spreads over many fusions and that counts in each of them."""
    piece = """
%piece_{0} (p.{0}: f32[128,256]) -> f32[1024,256] {{
  %p.{0} = f32[128,256]{{1,0}} parameter(0)
  %g.{0} = f32[1024,256]{{1,0}} all-gather(%p.{0}), channel_id=7, replica_groups=[1,8]<=[8]
  ROOT %c.{0} = f32[1024,256]{{1,0}} custom-call(%g.{0}), custom_call_target="{1}"
}}
"""
    targets = ["AsyncCollectiveStart", "Other", "AsyncCollectiveDone"]
    pieces = "".join(piece.format(n, target) for n, target in enumerate(targets))
    run = "  %r.{0} = f32[1024,256]{{1,0}} fusion(%sum), kind=kCustom, calls=%piece_{0}{1}\n"
    cycles = ', backend_config={"estimated_cycles":"70"}'
    runs = run.format(0, "") + run.format(1, cycles) + run.format(2, "")
    text = tpu.replace("\nENTRY", pieces + "\nENTRY").replace("  %kernel =", runs + "  %kernel =")
    (gather,) = [c for c in weigh_text(text).collectives if c.kind == "all-gather"]
    assert (gather.bytes, gather.started, gather.hidden_cycles) == (1024 * 256 * 4, True, 70)


def test_buffers_are_what_is_neither_argument_nor_result(tpu):
    """Catches a list of largest buffers that is full of parameters, results or arrays on the core."""
    assert [(b.array, b.bytes) for b in weigh_text(tpu).buffers][:5] == [
        ("f32[6,128,128]", 6 * 128 * 128 * 4),
        ("f32[128,256]", 128 * 256 * 4),  # what the loop begins with
        ("f32[128,256]", 128 * 256 * 4),  # and what it makes
        ("f32[128,64]", 128 * 128 * 4),  # what is permuted, 64 lanes padded to 128
        ("f32[64,128]", 64 * 128 * 4),
    ]


def test_a_buffer_that_the_compiler_moved_has_its_line(tpu):
    """Catches a list of largest buffers without lines: most of them are copies, of which the compiler says nothing."""
    moved = """  %up-start = (f32[6,128,128]{2,1,0}, f32[6,128,128]{2,1,0}, u32[]{:S(2)}) copy-start(%scores)
  %up-done = f32[6,128,128]{2,1,0} copy-done(%up-start)
  %back = f32[6,128,128]{2,1,0} copy(%up-done)
  %kernel ="""
    buffers = weigh_text(tpu.replace("  %kernel =", moved)).buffers
    found = [b for b in buffers if b.array == "f32[6,128,128]"]
    assert len(found) == 3 and len(set(found)) == 1
    assert str(found[0].source) == "electra_jax/learn/step.py:61 train_step"
    assert found[0].op_name.endswith("attention/dot_general")


def test_a_real_program(compiled):
    """Catches a parser that has fallen behind what this version of XLA prints, on the devices every test has."""
    assert compiled.flops == 6 * 2 * (32 // 8) * 64 * 128
    assert compiled.unknown_loops == ()
    assert compiled.bytes_by_collective() == {"all-reduce": 6 * 128 * 4} or (
        compiled.bytes_by_collective() == {"all-reduce": 128 * 4}  # moved out of the loop
    )
    assert {c.group for c in compiled.collectives} == {8}
    assert all(c.source and "conftest.py" in str(c.source) for c in compiled.collectives)


def test_memory_is_the_compilers(compiled):
    """Catches a donated argument that counts twice."""
    memory = compiled.memory
    weights, rows = 64 * 128 * 4, 6 * 4 * 64 * 4
    assert (memory.arguments, memory.outputs, memory.aliased) == (weights + rows, weights, weights)
    assert memory.total == memory.arguments + memory.temporaries + memory.code


def test_flops_agree_with_xlas_where_there_is_no_loop():
    """Catches a formula of ours that disagrees with the compiler's on plain and batched products."""

    def product(a, b, c):
        return jnp.einsum("bij,bjk->bik", a, b) @ c

    shapes = [(4, 8, 16), (4, 16, 32), (32, 64)]
    lowered = jax.jit(product).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    compiled = lowered.compile()
    assert weigh(compiled).flops == compiled.cost_analysis()["flops"]
