"""Fine-tuning: tasks, features, heads, metrics, and the training of a pretrained encoder."""
