"""Fine-tuning: heads, and the training of a pretrained encoder on tasks."""
