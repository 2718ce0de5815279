"""Tokens: what each part of a text added to a prediction, found by masking parts in antithetic orders."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from explainers.coalitions import Masks, every, paths, shapley, walked
from explainers.contract import Attributions, Method, Numbers, Options, Piece, Question

Cuts = Mapping[str, list[tuple[int, int]]]
"""Where the parts of each text begin and end."""
MOST_ENUMERATED = 12
MOST_PAIRS = 1000
ALONE = "; of a single pair that is half of how far its two ways are apart, usually several times too much"
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Han, which are written without spaces."""
PARTS = {
    "token": re.compile(rf"[{_ALONE}]|(?:(?![{_ALONE}])\w)+(?:['\u2019](?:(?![{_ALONE}])\w)+)*|[^\w\s]"),
    "sentence": re.compile(r"\S(?:[^.!?\u3002\uff01\uff1f\n]*)(?:[.!?\u3002\uff01\uff1f]+|\n|$)"),
}


class TokenOptions(Options):
    """How texts are cut and masked, and how much is spent."""

    granularity: Literal["token", "sentence"] = "token"
    mask: Annotated[str, Field(max_length=100)] = ""
    """What stands for each stretch of masked parts, such as [MASK]; nothing where not given."""
    budget: Annotated[int, Field(ge=16, le=1_000_000)] = 2000
    """Predictions that one explained row may cost; one pair of orders is walked in any case."""
    permutations: Annotated[int, Field(ge=1, le=MOST_PAIRS)] | None = None
    """Pairs of orders; as many as the budget allows where not given."""
    error: Annotated[float, Field(gt=0)] | None = None
    """Stop within the budget as soon as the largest standard error of a part is at most this."""
    most_parts: Annotated[int, Field(ge=2, le=2000)] = 200
    """Neighbouring parts of a longer text are taken together."""
    background_rows: Annotated[int, Field(ge=1, le=100)] = 10
    """Rows of the background that stand for the inputs that are no text, where there are some."""


class Tokens(Method):
    """Permutation SHAP in which the players are the parts of the texts, and every other input as a whole."""

    name = "tokens"
    title = "tokens, by masking"
    source = (
        "Lundberg and Lee (2017); shap.maskers.Text with collapsed masks; Mitchell et al. (2022), Sampling "
        "permutations for Shapley value estimation"
    )
    options = TokenOptions

    def refusal(self, question: Question) -> str:
        """Return why not: the model takes no text, or a text shares a group with something else."""
        bound = question.bound
        texts = bound.model.texts & set(bound.inputs)
        if not texts:
            return "the model takes no text: tokens explain features of the type text, of a model behind an endpoint"
        for name in texts:
            if bound.parts.count(bound.parts[bound.inputs.index(name)]) > 1:
                return f"the text {name!r} is in a group with other inputs, so its parts are not explained alone"
        if len(texts) < len(bound.inputs) and not len(question.background):
            return "a background is needed for the inputs that are no text: activate a baseline with rows"
        return ""

    def attribute(self, question: Question) -> Attributions:
        """Return what each part added, summed by input too; exact where the budget allows every coalition."""
        game = _Game.of(question, TokenOptions.model_validate(dict(question.options)))
        full = game.predict(question.rows)
        base = game.predict(game.empty()).mean(axis=0)
        generator = question.generator()
        told = [game.explained(place, base, full[place], generator) for place in range(len(question.rows))]
        exact = all(one.exact for one in told)
        largest = max(float(one.errors.max()) for one in told)
        pairs = [one.pairs for one in told if not one.exact]
        return Attributions(
            values=np.array([one.values for one in told]),
            base=base,
            predictions=full,
            error=None if exact else np.array([one.error for one in told]),
            exact=exact,
            evaluations=game.evaluations,
            note="every coalition of the parts"
            if exact
            else f"{_counted(pairs)} antithetic pairs of orders of the parts, the largest standard error of a part "
            f"{largest:.2g}{ALONE if min(pairs) == 1 else ''}",
            background=0 if game.size == 1 else game.size,
            against="the text with every part masked" if game.size == 1 else "",
            pieces=tuple(one.pieces for one in told),
        )


@dataclass(frozen=True)
class _Told:
    values: Numbers
    error: Numbers
    errors: Numbers
    pieces: Mapping[str, tuple[Piece, ...]]
    exact: bool
    pairs: int


@dataclass
class _Game:
    """Texts in parts against their masked forms, and other inputs against a background."""

    question: Question
    options: TokenOptions
    texts: tuple[str, ...]
    others: tuple[int, ...]
    """Players that are no text."""
    background: pd.DataFrame
    evaluations: int = 0

    @classmethod
    def of(cls, question: Question, options: TokenOptions) -> "_Game":
        bound = question.bound
        texts = tuple(name for name in bound.inputs if name in bound.model.texts)
        owners = {bound.parts[bound.inputs.index(name)] for name in texts}
        others = tuple(place for place in range(len(bound.players)) if place not in owners)
        rows = question.background.head(options.background_rows) if others else question.rows.head(1)
        return cls(question, options, texts, others, rows)

    @property
    def size(self) -> int:
        """How many rows each coalition is predicted over."""
        return len(self.background)

    def predict(self, frame: pd.DataFrame) -> Numbers:
        self.evaluations += len(frame)
        return self.question.bound.predict(frame, self.question.scale)

    def empty(self) -> pd.DataFrame:
        """Return the background with every text masked."""
        return self.background.assign(**{name: [self.options.mask] * self.size for name in self.texts})

    def explained(self, place: int, base: Numbers, full: Numbers, generator: np.random.Generator) -> _Told:
        row = self.question.rows.iloc[place]
        cuts = {name: cut(row[name], self.options) for name in self.texts}
        players = sum(map(len, cuts.values())) + len(self.others)
        cost = 2 * (players - 1) * self.size
        exact = players <= MOST_ENUMERATED and 2**players * self.size <= self.options.budget
        if players == 1:
            values, halves = (full - base)[None, :], np.zeros((1, 1, full.size))
            exact = True
        elif exact:
            values = shapley(self.worth(row, cuts, every(players), base, full), players)
            halves = np.zeros((1, *values.shape))
        else:
            wanted = self.options.permutations or max(1, self.options.budget // cost)
            halves = self._orders(row, cuts, min(wanted, MOST_PAIRS), base, full, generator)
            values = halves.mean(axis=0)
        errors = _error(halves)
        return _Told(
            values=self._by_player(values[None], cuts)[0],
            error=_error(self._by_player(halves, cuts)),
            errors=errors,
            pieces=_pieces(row, cuts, values, errors),
            exact=exact,
            pairs=len(halves) // 2,
        )

    def _orders(
        self,
        row: pd.Series,
        cuts: Cuts,
        pairs: int,
        base: Numbers,
        full: Numbers,
        generator: np.random.Generator,
    ) -> Numbers:
        """Return what orders say, each pair as two halves: (2 pairs, players, outputs)."""
        players = sum(map(len, cuts.values())) + len(self.others)
        found: list[Numbers] = []
        wanted = self.options.error
        done = 0
        while done < pairs:
            now = pairs if wanted is None else min(4, pairs - done)
            order = np.argsort(generator.random((now, players)), axis=1)
            rank = np.argsort(order, axis=1)
            masks = paths(rank)
            told = self.worth(row, cuts, masks.reshape(-1, players), base, full).reshape(now, -1, base.size)
            ahead, back = walked(rank, told, base, np.broadcast_to(full, (now, full.size)))
            found += [half for pair in zip(ahead, back, strict=True) for half in pair]
            done += now
            if wanted is not None and float(_error(np.array(found)).max()) <= wanted:
                break
        return np.array(found)

    def worth(
        self,
        row: pd.Series,
        cuts: Cuts,
        masks: Masks,
        base: Numbers,
        full: Numbers,
    ) -> Numbers:
        """Return the mean prediction of each coalition of a row's players, shape (coalitions, outputs)."""
        bound, size = self.question.bound, self.size
        out = np.empty((len(masks), base.size))
        none, whole = ~masks.any(axis=1), masks.all(axis=1)
        out[none], out[whole] = base, full
        asked = masks[~none & ~whole]
        columns: dict[str, Any] = {}
        first = 0
        for name in self.texts:
            last = first + len(cuts[name])
            texts = [masked(row[name], cuts[name], known, self.options.mask) for known in asked[:, first:last]]
            columns[name] = np.repeat(np.array(texts, dtype=object), size)
            first = last
        for name, part in zip(bound.inputs, bound.parts, strict=True):
            if name in columns:
                continue
            known = asked[:, first + self.others.index(part)]
            theirs = self.background[name].to_numpy()
            mine = np.full(len(asked), row[name], dtype=theirs.dtype if theirs.dtype.kind == "f" else object)
            columns[name] = np.where(known[:, None], mine[:, None], theirs[None, :]).ravel()
        if len(asked):
            frame = pd.DataFrame({name: columns[name] for name in bound.inputs})
            out[~none & ~whole] = self.predict(frame).reshape(len(asked), size, -1).mean(axis=1)
        return out

    def _by_player(self, values: Numbers, cuts: Cuts) -> Numbers:
        """Return values of parts and others, shape (n, players of the row, outputs), summed by the model's players."""
        bound = self.question.bound
        owner = [bound.parts[bound.inputs.index(name)] for name in self.texts for _ in cuts[name]] + list(self.others)
        out = np.zeros((len(values), len(bound.players), values.shape[2]))
        for place, player in enumerate(owner):
            out[:, player] += values[:, place]
        return out


def _counted(pairs: list[int]) -> str:
    return str(min(pairs)) if min(pairs) == max(pairs) else f"{min(pairs)} to {max(pairs)}"


def cut(text: object, options: TokenOptions) -> list[tuple[int, int]]:
    """Return where the parts of a text begin and end; a text without any is one part."""
    if not isinstance(text, str):
        return [(0, 0)]
    found = [match.span() for match in PARTS[options.granularity].finditer(text)]
    if not found:
        return [(0, len(text))]
    each = -(-len(found) // options.most_parts)
    return [(found[at][0], found[min(at + each, len(found)) - 1][1]) for at in range(0, len(found), each)]


def masked(text: object, cuts: list[tuple[int, int]], known: NDArray[np.bool_], mask: str) -> object:
    """Return a text of which some parts are known, the mask once for each stretch of the others."""
    if known.all():
        return text
    if not isinstance(text, str) or not known.any():
        return mask
    ends = [start for start, _ in cuts[1:]] + [len(text)]
    out, hidden = "", False
    for (start, stop), end, there in zip(cuts, ends, known, strict=True):
        gap = text[stop:end]
        if there:
            out += text[start:end]
        else:
            out = out if not mask or hidden else f"{_apart(out)}{mask} "
            out = _apart(out) if gap else out
        hidden = not there
    return out.strip()


def _apart(text: str) -> str:
    """Return a text that what follows does not run into."""
    return text if not text or text[-1].isspace() else f"{text} "


def _error(halves: Numbers) -> Numbers:
    """Return standard errors of the mean of pairs: how far the pairs, or the two halves of one, are apart."""
    if len(halves) < 2:
        return np.zeros(halves.shape[1:])
    if len(halves) == 2:
        return np.asarray(np.abs(halves[0] - halves[1]) / 2)
    pairs = (halves[::2] + halves[1::2]) / 2
    return np.asarray(pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs)))


def _pieces(row: pd.Series, cuts: Cuts, values: Numbers, error: Numbers) -> dict[str, tuple[Piece, ...]]:
    out: dict[str, tuple[Piece, ...]] = {}
    place = 0
    for name, spans in cuts.items():
        text = row[name] if isinstance(row[name], str) else ""
        out[name] = tuple(
            Piece(text=text[start:end], start=start, end=end, values=values[at], error=error[at])
            for at, (start, end) in enumerate(spans, place)
        )
        place += len(spans)
    return out
