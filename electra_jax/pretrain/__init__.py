"""Pretraining: the options of a run, its compiled programs, and the loop around the train step."""
