"""Pretrain ELECTRA in JAX: raw text in, a Hugging Face model out."""

__version__ = "0.1.0"
