"""Kernels for TPUs (Pallas, Mosaic), for the rows of one device; chosen by the operations of the same names."""
