"""`electra-jax <command>`: flags become one call; a room is imported only when its command runs."""

from electra_jax.cli.commands import main

__all__ = ["main"]
