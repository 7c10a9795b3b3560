"""The tasks that are known by name."""

from electra_jax.spec import unknown_name
from electra_jax.tasks.known import glue, sentences, spans
from electra_jax.tasks.task import Task

TASKS = {task.name: task for group in (glue.TASKS, sentences.TASKS, spans.TASKS) for task in group}
ALIASES = {
    "sst": "sst2",
    "sts": "stsb",
    "diagnostic": "ax",
    "squad": "squad1",
    "squadv1": "squad1",
    "squadv2": "squad2",
    "conll2003": "ner",
    "conll2000": "chunk",
    "sick-e": "sick",
    "newsqa": "mrqa",
    "naturalqs": "mrqa",
    "triviaqa": "mrqa",
    "searchqa": "mrqa",
}


def get(name: str) -> Task:
    """The task of this name or alias. Raises UserError with the nearest names for none."""
    name = ALIASES.get(name, name)
    if name not in TASKS:
        raise unknown_name("task", name, (*TASKS, *ALIASES))
    return TASKS[name]
