"""Exact Shapley values by enumeration of every coalition, for models with few inputs."""

import math

import numpy as np

from explainers.coalitions import Game
from explainers.contract import Attributions, Method, Question

MOST_PLAYERS = 13


class Enumeration(Method):
    """The definition itself: 2^players coalitions of each row, against the whole background."""

    name = "enumeration"
    title = "all coalitions"
    source = "Shapley (1953), A value for n-person games"

    def refusal(self, question: Question) -> str:
        """Return why not: the number of coalitions doubles with each input."""
        players = len(question.bound.players)
        if players > MOST_PLAYERS:
            return f"{players} inputs have 2^{players} coalitions; up to {MOST_PLAYERS} inputs are enumerated"
        return "" if len(question.background) else "a background is needed: activate a baseline with rows"

    def attribute(self, question: Question) -> Attributions:
        """Return the exact values of the interventional game."""
        game = Game.of(question)
        players = game.players
        codes = np.arange(2**players)
        coalitions = (codes[:, None] >> np.arange(players) & 1).astype(bool)
        sizes = coalitions.sum(axis=1)
        share = np.array(
            [math.factorial(s) * math.factorial(players - s - 1) / math.factorial(players) for s in range(players)]
        )
        values = []
        for place in range(len(question.rows)):
            row = question.rows.iloc[place : place + 1]
            told = game.values(row, coalitions[None])[0]
            one = np.empty((players, told.shape[1]))
            for player in range(players):
                without = codes[~coalitions[:, player]]
                gain = told[without | 1 << player] - told[without]
                one[player] = share[sizes[without]] @ gain
            values.append(one)
            base, full = told[0], told[-1]
        predictions = game.predict(question.rows)
        base = game.base() if not values else base
        del full
        return Attributions(
            values=np.array(values).reshape(len(question.rows), players, -1),
            base=base,
            predictions=predictions,
            evaluations=game.evaluations,
        )
