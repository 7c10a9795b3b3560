"""What a task is: its files, examples, features, answers, metrics and outputs; no JAX in here."""
