"""The explain page: what predictions rest on, whether that changed, why one came out as it did; and its sheet."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dashboards.charts import Chart
from dashboards.model import ModelPage
from dashboards.page import Page
from dashboards.standing import Standing


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much an input counts in the window and in the baseline: mean absolute attributions, and shares of all."""

    feature: str
    window: float
    baseline: float | None
    window_share: float | None
    baseline_share: float | None


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What one input added to one prediction."""

    feature: str
    value: str
    attribution: float
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """A part of a text, what stands between it and the next, and what it added, also as a step from -4 to 4."""

    text: str
    gap: str
    attribution: float
    error: float
    step: int


@dataclass(frozen=True, kw_only=True)
class ExplainedText:
    """A text in its parts, and the parts that count most, strongest first."""

    feature: str
    parts: tuple[TextPart, ...]
    strongest: tuple[TextPart, ...]


@dataclass(frozen=True, kw_only=True)
class LocalExplanation:
    """One explained prediction, with all that it takes to defend it years later."""

    prediction_id: str
    version: str
    method: str
    why: str
    exact: bool | None
    output: str
    class_: str
    base_value: float | None
    prediction: str
    artifact_digest: str
    background: str
    seed: int | None
    note: str
    """What was spent, and how exact that is."""
    contributions: tuple[Contribution, ...]
    texts: tuple[ExplainedText, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExplainPage(ModelPage):
    """What the predictions of a window rest on, beside the baseline, and one prediction explained on request."""

    template: ClassVar[str] = "explain.html"
    artifact: str
    """What the version is explained with, in words."""
    monitor: str
    window_start: datetime | None
    window_end: datetime | None
    run_standing: Standing
    sentence: str
    importances: tuple[Importance, ...]
    bars: Chart | None
    ranks: Chart | None
    shifts: Chart | None
    may_ask: bool
    """Whether the reader's key may see single records."""
    asked: str
    refusal: str
    explained: LocalExplanation | None


@dataclass(frozen=True, kw_only=True)
class SheetPage(Page):
    """An explanation as it was told, to print and to keep."""

    template: ClassVar[str] = "explanation.html"
    uid: str
    model: str
    version: str
    created_at: str
    kept: bool
    favourable: str
    items: tuple[LocalExplanation, ...]
    software: tuple[str, ...]
    json_address: str
    csv_address: str
