"""What a model, a format of files, a method and an attribution are: the public, versioned contract of explainers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pandas as pd

CONTRACT_VERSION = 1

Numbers = NDArray[np.float64]


class Scale(StrEnum):
    """In what a model's output is told: log-odds and the like, chance of a class, or the target's own unit."""

    MARGIN = "margin"
    PROBABILITY = "probability"
    VALUE = "value"


class Family(StrEnum):
    """What is known of a model's inside, which decides what can explain it exactly."""

    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    CATBOOST = "catboost"
    TREES = "trees"
    LINEAR = "linear"
    BLACK_BOX = "black box"


BOOSTERS = (Family.XGBOOST, Family.LIGHTGBM, Family.CATBOOST)


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake
    """Something is not explained or not loaded; the text is one sentence for whoever asked."""


class NotAdditiveError(Exception):
    """Base and attributions do not add up to the prediction."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded model: its columns by name, its outputs, how it predicts, and what is known of its inside.

    ``predict(frame, scale)`` takes columns in the order of ``columns`` and returns an array of shape (rows, outputs).
    A binary classifier and a regression have one output (the chance or margin of the class named in ``outputs``). The
    inside (``native``) is fed with ``matrix(frame)``, whose column j belongs to column ``owner[j]`` of the frame.
    """

    family: Family
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    other: str | None = None
    """The class that a binary classifier's one output is not about."""
    scales: tuple[Scale, ...]
    """What it can predict; the first is what its inside adds up to."""
    predict: Callable[[pd.DataFrame, Scale], Numbers]
    native: Any = None
    matrix: Callable[[pd.DataFrame], Any] | None = None
    owner: tuple[int, ...] = ()
    depth: int | None = None
    """The deepest tree, where known."""
    trees: int | None = None
    single: bool = False
    """Whether it computes in single precision."""
    categorical: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    """Columns of running text, which is explained by its parts."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A model whose columns are tied to what is logged: the inputs by name, and who is credited for each.

    A *player* is what gets an attribution: a logged feature, or a group of them. ``encode`` turns a frame of the
    ``inputs`` into one of the model's columns; ``credit`` names the player of each column of the model, ``parts`` of
    each input.
    """

    model: Model
    inputs: tuple[str, ...]
    players: tuple[str, ...]
    parts: tuple[int, ...]
    credit: tuple[int, ...]
    encode: Callable[[pd.DataFrame], pd.DataFrame]

    def predict(self, frame: pd.DataFrame, scale: Scale) -> Numbers:
        """Return the predictions of a frame of the inputs, shape (rows, outputs)."""
        return self.model.predict(self.encode(frame), scale)

    def folded(self, values: Numbers) -> Numbers:
        """Return contributions of the inside's columns, shape (rows, columns, outputs), summed by player."""
        owner = self.model.owner or tuple(range(len(self.model.columns)))
        credit = np.asarray(self.credit)[np.asarray(owner, dtype=np.intp)]
        out = np.zeros((values.shape[0], len(self.players), values.shape[2]))
        for column, player in enumerate(credit):
            out[:, player] += values[:, column]
        return out


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be explained: rows of a bound model, against a background, on a scale, with chance fixed by a seed."""

    bound: Bound
    rows: pd.DataFrame
    background: pd.DataFrame
    scale: Scale
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def generator(self) -> np.random.Generator:
        """Return the question's source of chance, the same at each call."""
        return np.random.default_rng([self.seed, 0x5AA9])


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a text, where it stands, and what it added to each output, with the standard error: (outputs,)."""

    text: str
    start: int
    end: int
    values: Numbers
    error: Numbers


@dataclass(frozen=True, kw_only=True)
class Attributions:
    """What each player added to each prediction: ``base + values.sum(axis=1) == predictions`` where it is additive.

    ``values`` has the shape (rows, players, outputs), ``base`` (outputs,), ``predictions`` (rows, outputs); ``error``
    is the standard error of ``values`` where they are estimates. ``evaluations`` counts predicted rows. ``background``
    is how many rows stood for what is usual, ``against`` what did where no rows of the caller's did. ``pieces`` holds
    of each row, by input, what the parts of its texts added; they sum to the input's own value.
    """

    values: Numbers
    base: Numbers
    predictions: Numbers
    error: Numbers | None = None
    exact: bool = True
    evaluations: int = 0
    note: str = ""
    background: int = 0
    against: str = ""
    pieces: tuple[Mapping[str, tuple[Piece, ...]], ...] = ()


TRAINING = "the rows that the model's trees counted in training"
"""What path-dependent values of trees are told against."""


class Options(BaseModel):
    """What a caller may set on a method; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(ABC):
    """A way to attribute a prediction to its inputs; one file, found by discovery."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    additive: ClassVar[bool] = True
    """Whether base and attributions add up to the prediction, which is then asserted on every batch."""
    tolerance: ClassVar[float] = 1e-6
    """How far the sum may be off, relative to the size of the prediction and its parts, in double precision."""
    options: ClassVar[type[Options]] = Options
    libraries: ClassVar[tuple[str, ...]] = ()
    """Modules that it imports when it is used, which take a while."""

    @abstractmethod
    def refusal(self, question: Question) -> str:
        """Return "" where the method can answer, else why it cannot, as a sentence."""

    @abstractmethod
    def attribute(self, question: Question) -> Attributions:
        """Answer; deterministic for the same question."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the file of a model does not say itself, as its owner declared it.

    ``columns``: the model's columns in its order. ``groups``: a logged feature or group -> either the columns of the
    model that are logged as they are and are credited together, or {column: category} of a one-hot encoding of the
    logged feature. ``encodings``: logged feature -> {category: number}. ``classes``: in the model's order. ``texts``:
    the columns of running text.
    """

    columns: tuple[str, ...] | None = None
    groups: Mapping[str, Sequence[str] | Mapping[str, str]] = field(default_factory=dict)
    encodings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    positive_class: str | None = None
    task: str | None = None
    texts: tuple[str, ...] = ()


class Artifact(ABC):
    """A format of model files that can be loaded without running what is in them; one file, found by discovery."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ()
    """Modules that it imports when it is used, which take a while."""

    @abstractmethod
    def recognises(self, data: bytes) -> bool:
        """Return whether the content (never the name) is of this format."""

    @abstractmethod
    def load(self, data: bytes, manifest: Manifest) -> Model:
        """Load the model; raises Refusal with a sentence where the file or the manifest does not allow it."""


class Endpoint(ABC):
    """A protocol that a served model is asked for predictions in; one file, found by discovery. It does no I/O."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    content_type: ClassVar[str] = "application/json"

    @abstractmethod
    def body(self, frame: pd.DataFrame) -> bytes:
        """Return the request body that asks for the predictions of some rows."""

    @abstractmethod
    def predictions(self, body: bytes, rows: int) -> Numbers:
        """Return what was answered, shape (rows, outputs); raises Refusal where it is not that."""
