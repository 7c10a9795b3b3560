"""Kernels for H100 and H200 GPUs (Pallas, Triton), for the rows of one device; chosen by the operations around."""
