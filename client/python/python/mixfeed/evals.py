"""Pinned sets of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mixfeed import _mixfeed
from mixfeed.batch import Batch


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A pinned set, in order, once, unmixed; see `Loader.eval_set`. It can be iterated again and again."""

    group: str
    """`SOURCE` or `SOURCE/GROUP`."""
    open: Callable[[], _mixfeed.Stream]
    """Begins a stream of it."""
    made: Callable[[_mixfeed.Batch], Batch]
    """What the loader makes of a received batch."""

    def __iter__(self) -> Iterator[Batch]:
        stream = self.open()
        try:
            while (core := stream.next()) is not None:
                yield self.made(core)
        finally:
            stream.close()
