"""How fast the hardware is: the vendor's dense peak from a table, and a matmul measured here."""

import functools
import re
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Dense peak of bfloat16 matmuls with float32 accumulation, FLOP/s per JAX device (which is a core, not a
# chip, on TPU v2, v3 and v7x), by the start of `device_kind`. The longest start that fits counts.
# TPU: cloud.google.com/tpu/docs/system-architecture-tpu-vm and the pages of each version.
# NVIDIA: the data sheet of each product; where it gives the figure "with sparsity", half of it.
# V100 and T4 have no bfloat16: float16, the rate their tensor cores have.
PEAKS = {
    "TPU v2": 22.5e12,  # 45 per chip of two cores
    "TPU v3": 61.5e12,  # 123 per chip of two cores
    "TPU v4 lite": 138e12,  # v4i
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,  # v5e
    "TPU v5e": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,  # v6e, Trillium
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,  # Ironwood: 2307 per chip of two devices
    "TPU v7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA A10G": 70e12,  # Amazon's variant, fewer cores than the A10
    "NVIDIA A10": 125e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 149.7e12,
    "NVIDIA RTX A6000": 154.8e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L40": 181e12,
    "NVIDIA H100": 989.4e12,  # SXM
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989.4e12,  # SXM
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200": 989.4e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "NVIDIA GeForce RTX 3090": 71e12,  # GA102 white paper
    "NVIDIA GeForce RTX 4090": 165.2e12,  # Ada white paper
    "NVIDIA GeForce RTX 5090": 209.5e12,  # Blackwell white paper
    "Tesla V100": 125e12,  # SXM2; 112 for PCIe
    "Tesla V100-PCIE": 112e12,
    "Tesla T4": 65e12,
    "NVIDIA T4": 65e12,
    "AMD Instinct MI250X": 191.5e12,  # 383 per card of two devices
    "AMD Instinct MI300X": 1307.4e12,
}
_TIMED_S = 0.05  # a measurement shorter than this is mostly dispatch
_LARGEST = 8192


def peak(device: jax.Device) -> float | None:
    """The vendor's dense bfloat16 peak of this device, FLOP/s; None when unknown (any CPU)."""
    return peak_of(device.device_kind)


def peak_of(kind: str) -> float | None:
    """The same by the name JAX gives the device."""
    if "laptop" in kind.lower():
        return None  # a slower chip under the desktop's name
    # Whole words only: an A1000 is no A100.
    known = [name for name in PEAKS if re.match(rf"{re.escape(name)}(?![a-z0-9])", kind, re.I)]
    return PEAKS[max(known, key=len)] if known else None


@functools.cache
def matmul_peak(dtype: str = "float32") -> float:
    """FLOP/s of square matmuls in `dtype`, measured now on this process's first device.

    The size doubles until eight of them take 50 ms or it is 8192; the best of three rounds counts. On
    a CPU the device has all the machine's cores, so fake CPU devices share this figure.
    """
    size = 512
    while True:
        best = min(_time_matmuls(size, dtype) for _ in range(3))
        if best >= _TIMED_S or size >= _LARGEST:
            return 8 * 2 * size**3 / best
        size *= 2


def _time_matmuls(size: int, dtype: str) -> float:
    """Seconds of eight dependent matmuls of random numbers (zeros run faster than real data)."""
    with jax.transfer_guard("allow"):
        x, w = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))
        w = w / jnp.sqrt(size).astype(w.dtype)  # keeps the product's scale
        _product(x, w).block_until_ready()
        start = time.perf_counter()
        for _ in range(8):
            x = _product(x, w)
        x.block_until_ready()
        return time.perf_counter() - start


@jax.jit
def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


def utilisation(
    flops_per_s: float, dtype: str, devices: Sequence[jax.Device] | None = None
) -> dict[str, float | None]:
    """`mfu`, the share of the vendor's peak (None when unknown), and `mfu_of_matmul`, of a measured matmul.

    `flops_per_s` is that of the whole run on all `devices` (default: every device of every process).
    """
    devices = jax.devices() if devices is None else devices
    peaks = [peak(device) for device in devices]
    vendor = None if None in peaks else sum(p for p in peaks if p is not None)
    return {
        "mfu": None if vendor is None else flops_per_s / vendor,
        "mfu_of_matmul": flops_per_s / matmul_rate(dtype, devices),
    }


def matmul_rate(dtype: str, devices: Sequence[jax.Device] | None = None) -> float:
    """FLOP/s of a measured matmul on all `devices` together (default: every device of every process)."""
    devices = jax.devices() if devices is None else devices
    units = (
        len({d.process_index for d in devices}) if devices[0].platform == "cpu" else len(devices)
    )
    return matmul_peak(dtype) * units
