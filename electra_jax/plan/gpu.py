"""NVIDIA's GPUs by name, `h100` or `h100-8`, one to eight of a box: compiled for without a card, by the CUDA plugin."""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import jax
from jax.experimental import topologies

from electra_jax.learn import hardware
from electra_jax.plan.chips import BOX, GPUS, Gpu
from electra_jax.plan.cost import Machine, Rates
from electra_jax.spec import UserError

# JAX keeps this share of a GPU's memory for programs (XLA_PYTHON_CLIENT_MEM_FRACTION).
_SHARE = 0.75
# Of the peak and of the bandwidth, as measured on an H200 (docs/performance.md, "On a GPU"): products and XLA's other
# work; hand-written kernels, whose products and copies hide each other little.
_OPERATIONS = Rates(0.73, 0.75)
_KERNELS = Rates(0.27, 0.75, hidden=False)
# What XLA's compiler wants to know: NVIDIA's Hopper tuning guide and data sheets; sizes in bytes.
_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 }}
device_description_str: "{kind}"
"""


@dataclass(frozen=True)
class Box:
    """GPUs of one kind in one machine."""

    version: str  # a key of GPUS
    size: int

    @property
    def name(self) -> str:
        """h100-8."""
        return f"{self.version}-{self.size}"

    @property
    def gpu(self) -> Gpu:
        """What each can do."""
        return GPUS[self.version]

    @property
    def limit(self) -> int:
        """Bytes that JAX lets programs have on each, unless it is told otherwise."""
        return int(self.gpu.memory * _SHARE)


def parse(name: str) -> Box | None:
    """The GPUs of a name, `h100` for one; None where it names none of these. UserError for more than a box has."""
    found = re.fullmatch(rf"({'|'.join(GPUS)})(?:[-:](\d+))?", name)
    if found is None:
        return None
    size = int(found[2] or 1)
    if not 1 <= size <= BOX:
        raise UserError(
            f"topology {name!r}: a box has 1 to {BOX} GPUs ({found[1]}-{BOX}); several boxes are not planned"
        )
    return Box(found[1], size)


def installed() -> bool:
    """Whether the plugin that holds XLA's compiler for GPUs is there."""
    return any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13))


def require_compiler() -> None:
    """Raises UserError where that plugin is not installed."""
    if not installed():
        raise UserError(
            "planning for a GPU needs its compiler, which is not installed here (no GPU is needed): "
            "pip install 'electra_jax[cuda]'; --topology cpu works without"
        )


def devices(box: Box) -> Sequence[jax.Device]:
    """Devices to compile for; UserError without the compiler."""
    require_compiler()
    try:
        found = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=_HOPPER.format(**asdict(box.gpu)),
            topology=f"1x1x{box.size}",
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UserError(f"this CUDA plugin compiles for no {box.name}: {reason}") from error
    return list(found.devices)


def machine(box: Box) -> Machine:
    """The rates of one of these GPUs; the shares of them are measured ones."""
    peak = hardware.peak_of(box.gpu.kind)
    assert peak is not None  # a test checks
    return Machine(
        kind=box.gpu.kind,
        peak=peak,
        bandwidth=float(box.gpu.bandwidth),
        egress=box.gpu.link if box.size > 1 else 0.0,
        clock=None,
        operations=_OPERATIONS,
        kernels=_KERNELS,
    )
