"""The signs: one class each, from a run to a finding."""
