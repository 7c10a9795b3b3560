"""What runs are worth: predictions and their scores, the results of all runs, what one answer reaches, plots."""
