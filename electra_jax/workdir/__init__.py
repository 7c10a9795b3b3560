"""What the folder of a run knows: whose it is, where it lies, how it began, what may differ between two starts."""
