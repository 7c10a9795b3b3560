"""What the planner knows of each TPU chip and GPU beyond its peak: memory, bandwidths, links, clock."""

from dataclasses import dataclass

from electra_jax.learn import hardware


@dataclass(frozen=True)
class Chip:
    """A JAX device of a topology: a whole chip (the two cores of v4 and v5p run as one), on tpu7x half of one."""

    kind: str  # as JAX names the device
    cores: int  # TensorCores of a chip, which names such as v4-8 count
    hbm_gib: float  # as sold
    available_gib: float  # what the compiler lets a program have
    bandwidth: float  # of main memory, bytes/s
    clock: float  # Hz of the compiler's estimated cycles
    link: float  # bytes/s of one interconnect link of the chip in one direction
    network: float  # bytes/s to other slices, by the data-centre network
    dimensions: int  # of the torus that a full pod is
    wraps: int  # a side of the slice closes to a ring when it is a multiple of this
    devices: int = 1  # of a chip

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        peak = hardware.peak_of(self.kind)
        assert peak is not None  # every kind of CHIPS is in the table; a test checks
        return peak


# Memory, bandwidth and interconnect: cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e, read 2026-11-22, and /tpu7x, read
# 2026-11-28. A link is the page's bidirectional bandwidth per chip / 2 directions / the ports (2 a dimension); that of
# v4, which its page does not give, and the clocks of v4 and v5p: Jouppi et al., "TPU v4" (ISCA 2023), table 4. The
# other clocks: peak / the FLOPs of all matrix units in a cycle (tpu7x: as many a device as v6e). Network: the pages of
# v5p and tpu7x (which names v6e, too) give 50 and 100 Gb/s a chip, that of v5e 6.4 Tb/s a pod of 256 chips; v4, whose
# page gives none, is assumed to have what v5p has. Available memory: what libtpu 0.0.42 says when it refuses a program.
CHIPS = {
    "v4": Chip("TPU v4", 2, 32, 30.75, 1200e9, 1.05e9, 50e9, 6.25e9, 3, 4),
    "v5e": Chip("TPU v5 lite", 1, 16, 15.75, 819e9, 1.5e9, 50e9, 3.125e9, 2, 16),
    "v5p": Chip("TPU v5", 2, 95, 95.74, 2765e9, 1.75e9, 100e9, 6.25e9, 3, 4),
    "v6e": Chip("TPU v6 lite", 1, 32, 31.25, 1638e9, 1.75e9, 100e9, 12.5e9, 2, 16),
    "tpu7x": Chip("TPU7x", 2, 96, 94.75, 3690e9, 2.2e9, 100e9, 6.25e9, 3, 4, devices=2),
}

BOX = 8  # GPUs that are joined by NVLink


@dataclass(frozen=True)
class Gpu:
    """A GPU as it is sold for boxes of eight (SXM)."""

    kind: str  # as JAX names the device
    memory: int  # bytes
    bandwidth: int  # of main memory, bytes/s
    link: float  # bytes/s to the others of the box, in one direction


# NVIDIA's data sheets of H100 and H200, and what the driver says of their memory.
GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", 84_978_434_048, 3_352_320_000_000, 450e9),
    "h200": Gpu("NVIDIA H200", 150_754_820_096, 4_800_000_000_000, 450e9),
}
