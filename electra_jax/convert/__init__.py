"""Names and layouts of other worlds: Hugging Face folders, both ways."""
