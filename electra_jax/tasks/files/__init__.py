"""The files of a task, read and checked: tables, tags, questions, choices, relations, Parquet."""
