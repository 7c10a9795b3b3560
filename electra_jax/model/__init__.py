"""Pure Linen modules: arrays in, arrays out."""
