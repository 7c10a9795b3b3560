"""The process and its machine: other processes of the run, signals, memory, time."""
