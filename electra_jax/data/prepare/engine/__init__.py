"""A preparation as rounds of tasks that run anywhere, in any order, and more than once."""
