"""What is learned: one file per objective, which owns all that depends on it; a user's own is a file of the user's."""
