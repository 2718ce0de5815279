"""Permutation SHAP of any predict function: antithetic orders of the players, all predicted in large batches."""

from typing import Annotated

import numpy as np
from pydantic import Field

from explainers.coalitions import Game, paths, walked
from explainers.contract import Attributions, Method, Options, Question

ROWS_AT_ONCE = 64


class PermutationOptions(Options):
    """How much is spent."""

    permutations: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pairs of orders, each walked forwards and backwards."""
    error: Annotated[float, Field(gt=0)] | None = None
    """Pairs are added, up to a hundred, until the largest standard error is at most this."""


class Permutation(Method):
    """The mean marginal contribution over sampled orders; each order is walked in both directions."""

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
        """Return the estimates with their standard errors, found from how far the orders disagree."""
        options = PermutationOptions.model_validate(dict(question.options))
        game, generator = Game.of(question), question.generator()
        count, players = len(question.rows), game.players
        base, full = game.base(), game.predict(question.rows)
        found: list[np.ndarray] = []
        most = options.permutations if options.error is None else max(100, options.permutations)
        single = np.zeros((count, players, full.shape[1]))
        error = single
        while len(found) < most:
            one, apart = _pair(game, question, generator, base, full)
            found.append(one)
            single = apart if len(found) == 1 else single
            error = single if len(found) == 1 else np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
            if len(found) >= options.permutations and (options.error is None or error.max() <= options.error):
                break
        return Attributions(
            values=np.mean(found, axis=0),
            base=base,
            predictions=full,
            error=error,
            exact=players == 1,
            evaluations=game.evaluations,
            note=f"{len(found)} antithetic pair(s) of orders over {len(question.background)} background rows",
            background=len(question.background),
        )


def _pair(
    game: Game, question: Question, generator: np.random.Generator, base: np.ndarray, full: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the estimates of one order walked both ways, and half of how far the two ways are apart."""
    count, players = len(question.rows), game.players
    values = np.empty((count, players, full.shape[1]))
    apart = np.empty_like(values)
    for start in range(0, count, ROWS_AT_ONCE):
        rows = question.rows.iloc[start : start + ROWS_AT_ONCE]
        here = len(rows)
        order = np.argsort(generator.random((here, players)), axis=1)
        rank = np.argsort(order, axis=1)
        told = game.values(rows, paths(rank)) if players > 1 else np.empty((here, 0, base.size))
        ahead, back = walked(rank, told, base, full[start : start + here])
        values[start : start + here] = (ahead + back) / 2
        apart[start : start + here] = np.abs(ahead - back) / 2
    return values, apart
