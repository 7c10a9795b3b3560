"""The kinds of task, a file each: features, head, loss, predictions, scores, files, and the class each leaves as."""
