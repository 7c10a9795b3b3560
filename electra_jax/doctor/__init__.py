"""Is this run learning? Signs read from the log files of a workdir, without JAX."""
