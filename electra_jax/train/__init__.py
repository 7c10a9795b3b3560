"""How an objective is learned: optimizer, step, mesh, checkpoints, reports, and the loop that joins them."""
