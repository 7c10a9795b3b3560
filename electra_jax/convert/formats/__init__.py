"""The formats that models come in: a file each, which finds its files in a folder and reads tensors alone."""
