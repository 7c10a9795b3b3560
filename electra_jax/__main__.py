"""`python -m electra_jax` is `electra-jax`."""

import sys

from electra_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
