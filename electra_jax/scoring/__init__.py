"""Scores of texts by a pretrained model: pseudo-log-likelihoods, and minimal pairs judged by them."""
