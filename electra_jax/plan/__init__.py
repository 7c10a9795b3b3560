"""Weighs a run before the machine is rented: the real train step, compiled for a named topology and read."""
