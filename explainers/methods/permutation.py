"""Permutation SHAP of any predict function: antithetic orders of the players, one for each row of the background."""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from explainers.coalitions import BATCH, Game, Places, paths, walked
from explainers.contract import Attributions, Method, Numbers, Options, Question

LEAST_TWICE = 20
"""Of so many rows of the background, or a fifth of them, a second pair of orders is walked, to see the error."""
MOST = 100
MASKS = 2**26
"""Whether a player is known, for so many players of coalitions at once."""


class PermutationOptions(Options):
    """How much is spent."""

    permutations: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pairs of orders for each row of the background, each walked forwards and backwards."""
    error: Annotated[float, Field(gt=0)] | None = None
    """Pairs are added, up to a hundred a row of the background, until the largest standard error is at most this."""


class Permutation(Method):
    """The mean marginal contribution over sampled orders, walked both ways; every row of the background has its own.

    For the same number of predictions as one order walked over all of the background, an order for each of its K rows
    averages K of them. With the contributions phi_z of an order against the row z, of variance s^2 over the orders and
    n_z orders each, the mean over z has the variance s^2 / K^2 sum 1 / n_z; s^2 is pooled over the rows with several.
    What rows differ in themselves does not enter, since each of them counts once.
    """

    name = "permutation"
    title = "antithetic permutations"
    source = (
        "Štrumbelj and Kononenko (2014); Mitchell et al. (2022), Sampling permutations for Shapley value estimation"
    )
    options = PermutationOptions

    def refusal(self, question: Question) -> str:
        """Return why not: a background is needed."""
        return "" if len(question.background) else "a background is needed: activate a baseline with rows"

    def attribute(self, question: Question) -> Attributions:
        """Return the estimates with their standard errors; a row's do not depend on the rows that it comes with."""
        options = PermutationOptions.model_validate(dict(question.options))
        game = Game.of(question)
        usual, full = game.usual(), game.predict(question.rows)
        orders = _Orders(len(usual), game.players, question.generator())
        cost = len(usual) * orders.steps
        at_once = 1 if options.error is not None else max(1, BATCH // max(1, cost))
        values, errors = np.empty((2, len(full), game.players, full.shape[1]))
        pairs = 0
        for start in range(0, len(full), at_once):
            now = slice(start, start + at_once)
            values[now], errors[now], walks = _explained(
                game, question.rows.iloc[now], usual, full[now], orders, options
            )
            pairs = max(pairs, walks)
        return Attributions(
            values=values,
            base=usual.mean(axis=0),
            predictions=full,
            error=errors,
            exact=orders.steps <= 2,
            evaluations=game.evaluations,
            note=f"{pairs} antithetic pair(s) of orders over {len(usual)} background rows",
            background=len(usual),
        )


@dataclass
class _Orders:
    """Orders of the players for each row of the background, drawn when they are first asked for; the same for all."""

    size: int
    players: int
    generator: np.random.Generator
    _ranks: list[Places] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many coalitions a pair of orders walks through; through two at most it walks through all there are."""
        return 2 * (self.players - 1)

    def rank(self, number: int) -> Places:
        """Return at which place each player comes in one order for each row, shape (background, players)."""
        while len(self._ranks) <= number:
            order = np.argsort(self.generator.random((self.size, self.players)), axis=1)
            self._ranks.append(np.argsort(order, axis=1))
        return self._ranks[number]

    def rounds(self, options: PermutationOptions) -> list[int]:
        """Return for how many rows of the background there is a first order, a second, and so on."""
        if self.steps <= 2:
            return [self.size]
        told = [self.size] * options.permutations
        short = max(LEAST_TWICE, self.size // 5) - self.size * (options.permutations - 1)
        while short > 0:
            told.append(min(self.size, short))
            short -= self.size
        return told


def _explained(
    game: Game, rows: pd.DataFrame, usual: Numbers, full: Numbers, orders: _Orders, options: PermutationOptions
) -> tuple[Numbers, Numbers, int]:
    """Return values and standard errors, shape (rows, players, outputs), and how many pairs were walked for a row."""
    size, rounds = len(usual), orders.rounds(options)
    mean = np.zeros((len(rows), size, game.players, full.shape[1]))
    ways = np.zeros_like(mean)
    squares, error = np.zeros((2, len(rows), game.players, full.shape[1]))
    times = np.zeros((size, 1, 1))
    number = 0
    while number < len(rounds) or (options.error is not None and error.max() > options.error and number < MOST):
        now = rounds[number] if number < len(rounds) else size
        found, apart = _pairs(game, rows, orders.rank(number)[:now], usual, full)
        times[:now] += 1
        off = found - mean[:, :now]
        mean[:, :now] += off / times[:now]
        squares += (off * (found - mean[:, :now])).sum(axis=1)
        ways[:, :now] += (apart**2 - ways[:, :now]) / times[:now]
        if times.sum() > size:
            error = np.sqrt(_variance(squares, ways, times) * (1 / times).sum()) / size
        number += 1
    return mean.mean(axis=1), error, int(times.sum())


def _variance(squares: Numbers, ways: Numbers, times: Numbers) -> Numbers:
    """Return the variance of what one pair of orders says, shape (rows, players, outputs).

    ``squares`` are the sums of squares around the means of those rows of the background that have several pairs;
    ``ways`` how far the two ways of a pair are apart, squared and of every row of the background. A player that matters
    for few of these may matter for none that has several: what the ways say of all of them is scaled by what pairs and
    ways say of those, for all players together, and the larger of the two holds.
    """
    told = squares / (times - 1).sum()
    several = (times[:, 0, 0] > 1).nonzero()[0]
    beside = ways[:, several].mean(axis=1).sum(axis=1, keepdims=True)
    scale = np.divide(told.sum(axis=1, keepdims=True), beside, out=np.ones_like(beside), where=beside > 0)
    return np.asarray(np.maximum(told, scale * ways.mean(axis=1)))


def _pairs(game: Game, rows: pd.DataFrame, rank: Places, usual: Numbers, full: Numbers) -> tuple[Numbers, Numbers]:
    """Return what orders walked both ways say of rows, each against its own row of the background.

    ``rank`` has the shape (walks, players). The results have the shape (rows, walks, players, outputs): the mean of the
    two ways, and half of how far they are apart.
    """
    count, (walks, players), outputs = len(rows), rank.shape, full.shape[1]
    steps = 2 * (players - 1)
    found, apart = np.empty((2, count, walks, players, outputs))
    at_once = max(1, MASKS // max(1, count * steps * players))
    for start in range(0, walks, at_once):
        here = rank[start : start + at_once]
        many = len(here)
        told = np.empty((count * many, steps, outputs))
        if steps:
            masks = np.tile(paths(here).reshape(-1, players), (count, 1))
            who = np.repeat(np.arange(count), many * steps)
            whose = np.tile(np.repeat(np.arange(start, start + many), steps), count)
            told = game.mixed(rows, masks, who, whose).reshape(count * many, steps, outputs)
        none = np.tile(usual[start : start + many], (count, 1))
        ahead, back = walked(np.tile(here, (count, 1)), told, none, np.repeat(full, many, axis=0))
        found[:, start : start + many] = ((ahead + back) / 2).reshape(count, many, players, outputs)
        apart[:, start : start + many] = ((ahead - back) / 2).reshape(count, many, players, outputs)
    return found, apart
