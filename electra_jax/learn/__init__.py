"""What every training is made of: the optimizer, the mesh, checkpoints, reports; it knows neither ELECTRA nor tasks."""
