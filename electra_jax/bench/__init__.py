"""Measures the real train step: time, tokens, useful FLOPs, memory."""
