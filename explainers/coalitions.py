"""The game that black boxes play: what a model predicts when some players are known and the rest is background."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explainers.contract import Bound, Numbers, Question, Scale

BATCH = 131_072
"""Rows that are predicted at once."""
Masks = NDArray[np.bool_]


@dataclass
class Game:
    """A bound model against a background: values of coalitions of players, predicted in large batches."""

    bound: Bound
    background: pd.DataFrame
    scale: Scale
    evaluations: int = 0
    _columns: list[NDArray[np.generic]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Hold the background as columns."""
        self._columns = [self.background[name].to_numpy() for name in self.bound.inputs]

    @classmethod
    def of(cls, question: Question) -> "Game":
        """Return the game of a question."""
        return cls(question.bound, question.background, question.scale)

    @property
    def players(self) -> int:
        """How many play."""
        return len(self.bound.players)

    def predict(self, frame: pd.DataFrame) -> Numbers:
        """Return predictions, counted."""
        self.evaluations += len(frame)
        return self.bound.predict(frame, self.scale)

    def base(self) -> Numbers:
        """Return the mean prediction of the background, shape (outputs,)."""
        return np.asarray(self.predict(self.background).mean(axis=0))

    def values(self, rows: pd.DataFrame, masks: Masks) -> Numbers:
        """Return the value of each coalition of each row, shape (rows, coalitions, outputs).

        ``masks`` has the shape (rows, coalitions, players): True where the player's inputs are the row's own. The
        value is the mean prediction over the background.
        """
        count, coalitions, _ = masks.shape
        size = len(self.background)
        flat = masks.reshape(count * coalitions, -1)
        whose = np.repeat(np.arange(count), coalitions)
        out: list[Numbers] = []
        step = max(1, BATCH // size)
        own = [rows[name].to_numpy() for name in self.bound.inputs]
        for start in range(0, len(flat), step):
            chosen, who = flat[start : start + step], whose[start : start + step]
            data = {
                name: _mixed(chosen[:, part], mine[who], theirs)
                for name, part, mine, theirs in zip(
                    self.bound.inputs, self.bound.parts, own, self._columns, strict=True
                )
            }
            predicted = self.predict(pd.DataFrame(data))
            out.append(predicted.reshape(len(chosen), size, -1).mean(axis=1))
        return np.concatenate(out).reshape(count, coalitions, -1)


def _mixed(known: Masks, mine: NDArray[np.generic], theirs: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return (coalitions x background) values: a row's own where its player is known, else the background's."""
    return np.where(known[:, None], mine[:, None], theirs[None, :]).ravel()


def by_rows(count: int, each: int, work: Callable[[slice], None]) -> None:
    """Do work for slices of so many rows."""
    for start in range(0, count, each):
        work(slice(start, min(start + each, count)))
