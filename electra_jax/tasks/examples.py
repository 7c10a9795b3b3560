"""What a task is made of, as read from its files: text, tags, questions, choices."""

import dataclasses

from electra_jax.tasks.tags import Span


@dataclasses.dataclass(frozen=True)
class TextExample:
    """A text or a pair of texts.

    `label` is a class name, a score for regression, or None where the file has none.
    """

    id: str
    text: str
    pair: str | None = None
    label: str | float | None = None

    @property
    def labelled(self) -> bool:
        """Whether it says what is right."""
        return self.label is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class it names, if it does."""
        return (self.label,) if isinstance(self.label, str) else ()


@dataclasses.dataclass(frozen=True)
class TagExample:
    """Words with a tag each; `tags` is None where the file has none.

    `entities`: all of them, where some overlap, which tags cannot say; None: those of the tags.
    """

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    entities: tuple[Span, ...] | None = None

    @property
    def labelled(self) -> bool:
        """Whether it says what is right."""
        return self.tags is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """Its tags."""
        return self.tags or ()


@dataclasses.dataclass(frozen=True)
class QaExample:
    """A question about a context.

    `answers` are (text, first character in the context); the first is the one trained on, and a
    character of -1 means that the file put it in a wrong place. It is empty for an impossible
    question and where none are known. `references`: what predictions are compared with where that
    is not the texts of `answers` (MRQA).
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()
    impossible: bool = False
    references: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether it says what is right."""
        return self.impossible or bool(self.golds)

    @property
    def classes(self) -> tuple[str, ...]:
        """None: an answer is a text."""
        return ()

    @property
    def golds(self) -> tuple[str, ...]:
        """Every reference answer; none for an impossible question."""
        return self.references or tuple(text for text, _ in self.answers)


@dataclasses.dataclass(frozen=True)
class ChoiceExample:
    """A context and what may follow or answer it; `label` is the number of the right choice."""

    id: str
    context: str
    choices: tuple[str, ...]
    label: int | None = None

    @property
    def labelled(self) -> bool:
        """Whether it says what is right."""
        return self.label is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """None: a choice is a number."""
        return ()


Example = TextExample | TagExample | QaExample | ChoiceExample
