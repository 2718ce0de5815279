"""The game that black boxes play: what a model predicts when some players are known and the rest is background."""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explainers.contract import Bound, Numbers, Question, Scale

BATCH = 131_072
"""Rows that are predicted at once."""
Masks = NDArray[np.bool_]
Places = NDArray[np.intp]


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

    def usual(self) -> Numbers:
        """Return the prediction of each row of the background, shape (background, outputs)."""
        return np.asarray(self.predict(self.background))

    def mixed(self, rows: pd.DataFrame, masks: Masks, who: Places, whose: Places) -> Numbers:
        """Return predictions, shape (n, outputs), of row ``who`` where a player is known, else of background ``whose``.

        ``masks`` has the shape (n, players); ``who`` and ``whose`` say by place which rows are mixed, shape (n,).
        """
        own = [rows[name].to_numpy() for name in self.bound.inputs]
        out: list[Numbers] = []
        for start in range(0, len(masks), BATCH):
            now = slice(start, start + BATCH)
            known = np.ascontiguousarray(masks[now].T)
            data = {
                name: np.where(known[part], mine[who[now]], theirs[whose[now]])
                for name, part, mine, theirs in zip(
                    self.bound.inputs, self.bound.parts, own, self._columns, strict=True
                )
            }
            out.append(self.predict(pd.DataFrame(data)))
        return np.concatenate(out)

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


def every(players: int) -> Masks:
    """Return all coalitions, shape (2^players, players); bit p of the place says whether player p is in it."""
    return (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(bool)


def shapley(told: Numbers, players: int) -> Numbers:
    """Return the Shapley values, shape (players, outputs), of what `every` coalition is worth, in that order."""
    codes = np.arange(2**players)
    sizes = every(players).sum(axis=1)
    share = np.array(
        [math.factorial(s) * math.factorial(players - s - 1) / math.factorial(players) for s in range(players)]
    )
    values = np.empty((players, told.shape[1]))
    for player in range(players):
        without = codes[codes >> player & 1 == 0]
        values[player] = share[sizes[without]] @ (told[without | 1 << player] - told[without])
    return values


def paths(rank: NDArray[np.intp]) -> Masks:
    """Return the coalitions on the way of each order, forwards then backwards: (orders, 2 (players - 1), players).

    ``rank`` says at which place of an order each player comes, shape (orders, players).
    """
    steps = np.arange(1, rank.shape[1])
    forwards = rank[:, None, :] < steps[None, :, None]
    return np.concatenate([forwards, ~forwards], axis=1)


def walked(rank: NDArray[np.intp], told: Numbers, base: Numbers, full: Numbers) -> tuple[Numbers, Numbers]:
    """Return what each player adds as orders are walked forwards, and backwards: (orders, players, outputs) each.

    ``told`` is what `paths` are worth, ``full`` the whole's worth of each order, shape (orders, outputs); ``base``
    nothing's, of each order or of all.
    """
    orders, players = rank.shape
    none, all_ = np.broadcast_to(base, (orders, base.shape[-1]))[:, None], full[:, None, :]
    ahead = np.diff(np.concatenate([none, told[:, : players - 1], all_], axis=1), axis=1)
    back = -np.diff(np.concatenate([all_, told[:, players - 1 :], none], axis=1), axis=1)
    place = rank[:, :, None]
    return np.take_along_axis(ahead, place, axis=1), np.take_along_axis(back, place, axis=1)
