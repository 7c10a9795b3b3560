"""Several slices: what a step sends from one to another, read off a written program and off real ones."""

import importlib.util

import jax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax.learn.arrays import flatten
from electra_jax.plan import topology
from electra_jax.plan.chips import CHIPS
from electra_jax.plan.cost import estimate, tpu
from electra_jax.plan.step import compile_step, settle
from electra_jax.plan.stretches import described
from electra_jax.plan.weighed import weigh_text
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config

# In the words of the compiler: a part is added up inside the slice, sent to the host, and comes back from all slices.
TEXT = """HloModule jit_train_step, is_scheduled=true

ENTRY %main (p: f32[64,128]) -> f32[8,128] {
  %p = f32[64,128]{1,0:T(8,128)} parameter(0)
  %free = token[] after-all()
  %mine = f32[8,128]{1,0:T(8,128)} reduce-scatter(%p), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %back = (f32[8,128]{1,0:T(8,128)}, u32[], token[]) recv(%free), is_host_transfer=true, frontend_attributes={SAID}
  %work = f32[64,128]{1,0:T(8,128)} negate(%p), backend_config={"estimated_cycles":"500"}
  %away = (f32[8,128]{1,0:T(8,128)}, u32[], token[]) send(%mine, %free), is_host_transfer=true, \
frontend_attributes={SAID}
  %more = f32[64,128]{1,0:T(8,128)} negate(%work), backend_config={"estimated_cycles":"1000"}
  %gone = token[] send-done(%away), is_host_transfer=true
  %came = (f32[8,128]{1,0:T(8,128)}, token[]) recv-done(%back), is_host_transfer=true
  %rest = f32[64,128]{1,0:T(8,128)} negate(%more), backend_config={"estimated_cycles":"9000"}
  ROOT %sum = f32[8,128]{1,0:T(8,128)} get-tuple-element(%came), index=0
}
"""
SAID = (
    '_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_target="{1,2}x{0:7}",'
    '_xla_megascale_transfer_type="ALL_REDUCE"'
)


@pytest.mark.parametrize(
    ("target", "slices"),
    [
        ('"{1,2}x{0:7}"', 2),
        ('"{1:4}x{0:7}"', 4),
        ('"{1,3:5}x{0}"', 4),
        ("{{100000,100001,200001,200000,300000,300001}}", 3),
        ('"another notation"', 2),
    ],
)
def test_what_goes_to_other_slices_is_an_exchange_of_its_own(target, slices):
    """Catches sends to the host that count as nothing, the whole array taken for a device's part, and work before the
    send or behind the arrival that is said to hide it."""
    text = TEXT.replace("SAID", SAID.replace('"{1,2}x{0:7}"', target))
    weighed = weigh_text(text)
    inside, between = weighed.collectives
    assert (inside.name, inside.group) == ("reduce-scatter", 8)
    assert (between.name, between.group) == ("all-reduce between slices", slices)
    assert between.bytes == 8 * 128 * 4 and between.started
    assert between.sent == 2 * (slices - 1) / slices * between.bytes
    assert (between.begins, between.hidden_cycles) == (500, 1000)
    assert set(weighed.bytes_by_collective()) == {"reduce-scatter", "all-reduce between slices"}
    (sent,) = [o for o in weighed.operations if o.opcode == "send"]
    assert sent.bytes == 8 * 128 * 4  # read once, and written by the other side


def test_the_network_between_slices_has_its_own_rate():
    """Catches the chips' links taken for the network between slices, twenty times slower, and one slice that has it."""
    two, one = (tpu(topology.parse(name)) for name in ("2xv5e-8", "v5e-8"))
    assert (two.network, one.network) == (CHIPS["v5e"].network, 0)
    assert two.egress == one.egress > 20 * two.network
    time = estimate(weigh_text(TEXT.replace("SAID", SAID)), two)
    (between,) = [e for e in time.exchanges if e.between_slices]
    assert between.kind == "all-reduce between slices"
    assert between.seconds == time.network == pytest.approx(4096 / two.network)
    assert between.exposed_seconds == pytest.approx(4096 / two.network - 1000 / two.clock)
    assert time.interconnect == pytest.approx(7 / 8 * 64 * 128 * 4 / two.egress)


def test_exchanges_between_slices_share_their_network():
    """Catches many sends that the same work is said to hide, one as well as all of them."""
    lines = TEXT.replace("SAID", SAID).splitlines()
    sends = [line for line in lines if "%away =" in line or "%back =" in line or "%came =" in line]
    many = []
    for line in lines:
        many.append(line)
        if line in sends:
            for n in range(2, 9):
                other = line.replace("all-reduce.1_0", f"all-reduce.{n}_0")
                for name in ("%away", "%back", "%came"):
                    other = other.replace(name, f"{name}{n}")
                many.append(other)
    machine = tpu(topology.parse("2xv5e-8"))
    time = estimate(weigh_text("\n".join(many)), machine)
    (between,) = [e for e in time.exchanges if e.between_slices]
    assert between.count == 8
    assert between.exposed_seconds == pytest.approx(
        8 * 4096 / machine.network - 1000 / machine.clock
    )


def test_a_call_on_another_core_is_its_collective():
    """Catches the exchanges of tpu7x, whose SparseCores take them, counted as none."""
    text = """HloModule jit_step, is_scheduled=true

%called (p: f32[8,128], t: token[]) -> f32[64,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %t = token[] parameter(1)
  ROOT %all-gather.1 = f32[64,128]{1,0} all-gather(%p), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}, execution_thread="sparsecore"

ENTRY %main (p: f32[8,128]) -> f32[64,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %free = token[] after-all()
  %s = ((f32[8,128]{1,0}, token[]), f32[64,128]{1,0}) call-start(%p, %free), to_apply=%called
  %work = f32[8,128]{1,0} negate(%p), backend_config={"estimated_cycles":"700"}
  ROOT %d = f32[64,128]{1,0} call-done(%s)
}
"""
    (gather,) = weigh_text(text).collectives
    assert (gather.kind, gather.bytes, gather.group) == ("all-gather", 64 * 128 * 4, 8)
    assert gather.started and gather.hidden_cycles == 700


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed (pip install 'electra_jax[tpu]')",
)
# Widths of 128: no gradient of a matrix or a table is padded on its way.
SIZES = ["layers=1", "width=128", "embedding=128", "ffn=128", "generator_size=1.0"]


def step_on(name: str, fsdp: int):
    """A small step compiled for these slices."""
    overrides = [*(f"model.{size}" for size in SIZES), "train.batch=48", f"mesh.fsdp={fsdp}"]
    run = run_spec(load_config("tiny", overrides).to_dict())
    data = described("tiny", "", None, 500)
    devices = topology.devices(topology.parse(name))
    return compile_step(settle(run, data, devices, None), data, devices)


def exchanged_between_slices(params: dict, devices: int) -> float:
    """The formula of docs/scaling.md: bytes that each of the devices of a slice sends, before tiles are filled up."""
    total = 0
    for name, leaf in params.items():
        times = {"word": 3, "position": 2, "type": 2}.get(name.rpartition("/")[2], 1)
        total += times * 4 * leaf.size
    return total / devices


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fsdp"),
    [
        ("2xv5e:2x4", 1), ("2xv5e:2x4", 4), ("2xv6e:2x4", 1), ("2xv6e:2x4", 8), ("2xv5p:2x2x1", 1),
        ("2xv5p:2x2x1", 2), ("2xtpu7x:2x2x1", 2), ("3xv5e:2x2", 2),
    ],
)  # fmt: skip
def test_between_slices_goes_the_gradient_alone(name, fsdp):
    """Catches parameters, activations or rows that travel between slices, and a gradient that each device sends whole:
    what is sent is one sum of every gradient, each device its share of it, however the slice splits its parameters."""
    step = step_on(name, fsdp)
    slices = topology.parse(name)
    inside = slices.size // slices.slices
    assert dict(step.program.mesh.shape) == {"data": slices.size // fsdp, "fsdp": fsdp}
    between = [c for c in step.weighed.collectives if c.between_slices]
    assert {(c.kind, c.group) for c in between} == {("all-reduce", slices.slices)}
    assert all(c.group <= inside for c in step.weighed.collectives if not c.between_slices)
    params = flatten(step.program.abstract_state["params"])
    expected = exchanged_between_slices(params, inside)
    found = sum(c.bytes for c in between)
    print(name, fsdp, found, expected, len(between))
    # The share of a matrix or a table is exact; those of vectors and counters fill up tiles of 4 KiB.
    assert expected <= found <= expected + 4096 * len(between)


@needs_libtpu
@pytest.mark.slow
def test_everything_else_compiles_for_two_slices():
    """Catches a run that has a step for two slices and no parameters to begin with, or no evaluation."""
    run = run_spec(
        load_config("tiny", ["model.layers=1", "mesh.fsdp=4", "train.batch=32"]).to_dict()
    )
    data = described("tiny", "", None, 500)
    devices = topology.devices(topology.parse("2xv5e:2x4"))
    built = compile_step(settle(run, data, devices, None), data, devices).program
    assert built.init.lower().compile() is not None
    number = jax.ShapeDtypeStruct((), "int32", sharding=NamedSharding(built.mesh, P()))
    state = built.abstract_state
    evaluated = built.eval_step.lower(
        state["params"], state["carried"], built.abstract_batch, number
    )
    assert evaluated.compile() is not None


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpu7x:2x2x1", "2xv4-8"])
def test_devices_of_every_generation(name):
    """Catches a chip of two devices counted as one, and slices whose devices do not say so."""
    slices = topology.parse(name)
    devices = topology.devices(slices)
    assert len(devices) == slices.size
    assert {d.device_kind for d in devices} == {slices.chip.kind}
    assert {getattr(d, "slice_index", 0) for d in devices} == set(range(slices.slices))
