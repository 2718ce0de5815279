"""What becomes a verdict: an alarm budget split by Holm's method over the results, thresholds, or SageMaker's rules."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import isfinite, log
from typing import Any

from monitors.contract import Column, Direction, Parameters, Result, Rule, Type, Verdict
from monitors.null import CALIBRATING

MOST_ALPHA = 0.05
"""No window is judged at more than this, however generous the budget."""
RATIO = "ratio"
"""The unit of values whose distance from 1 is that of their logarithm from 0."""
CALIBRATING_SHARE = 0.1
"""The part of alpha at which a result is judged that has to assume independent rows."""

REQUIRED_SHARE = 0.5
SAGEMAKER_NAMES = frozenset(
    {
        "evaluate_constraints",
        "emit_metrics",
        "datatype_check_threshold",
        "domain_content_threshold",
        "distribution_constraints",
    }
)
SAGEMAKER_DISTANCES = frozenset(
    {
        "perform_comparison",
        "comparison_threshold",
        "comparison_method",
        "categorical_comparison_threshold",
        "categorical_drift_method",
    }
)
SAGEMAKER_FILE = frozenset({"version", "features", "monitoring_config"})
SAGEMAKER_FEATURE = frozenset(
    {
        "name",
        "inferred_type",
        "completeness",
        "num_constraints",
        "string_constraints",
        "monitoringConfigOverrides",
    }
)

_UNITS = {
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "mo": timedelta(days=365.25 / 12),
    "y": timedelta(days=365.25),
}


class PolicyInvalidError(ValueError):
    """A policy or budget that cannot be read; the message says what would work."""


class Policy(ABC):
    """How a monitor's results become verdicts."""

    spends: bool = False
    """Whether the monitor takes a share of the model's alarm budget."""

    @abstractmethod
    def judge(self, results: Sequence[Result], alpha: float) -> list[Result]:
        """Return the results in their order with rule, alpha or threshold, and verdict filled.

        Results that carry a rule already (schema, constraint) and those without a value stay as they are.
        """

    def prepared(self, parameters: Parameters) -> Parameters:
        """Return the parameters with which the kind must measure for this policy to judge."""
        return parameters

    def thresholds_of(self, metric: str, column: Column) -> dict[str, float]:  # noqa: ARG002 - a budget has none
        """Return the fixed thresholds that a column is judged by, by metric; ``metric`` is what decides on it."""
        return {}


@dataclass(frozen=True, slots=True)
class BudgetPolicy(Policy):
    """Judge p-values so that a window's false alarms stay within the monitor's share of the budget.

    Holm's method runs over all deciding results with a p-value; a result is violated when it is rejected *and* its
    effect reaches the minimum. Results that assume independent rows are judged at a tenth.
    """

    share: float | None = None
    spends = True

    def prepared(self, parameters: Parameters) -> Parameters:
        """Return the parameters; PolicyInvalidError where what is to decide has no p-value."""
        if names := parameters.without_null():
            raise PolicyInvalidError(
                f"{', '.join(names)} has no p-value, so an alarm budget cannot judge it; give the monitor a threshold "
                "policy, or let another statistic decide and ask for this one in `also`"
            )
        return parameters

    def judge(self, results: Sequence[Result], alpha: float) -> list[Result]:
        """Return the results judged at a family-wise level of ``alpha``, which lies in (0, 1)."""
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
        places = [place for place, result in enumerate(results) if _awaits(result) and result.p_value is not None]
        parts = [CALIBRATING_SHARE if results[place].note.startswith(CALIBRATING) else 1.0 for place in places]
        levels = holm(
            [(results[place].p_value or 0.0) / part for place, part in zip(places, parts, strict=True)], alpha
        )
        judged = list(results)
        for place, part, (level, rejected) in zip(places, parts, levels, strict=True):
            result = results[place]
            large = result.effect is None or result.min_effect is None or result.effect >= result.min_effect
            verdict = Verdict.VIOLATED if rejected and large else Verdict.OK
            judged[place] = replace(result, rule=Rule.BUDGET, alpha=level * part, verdict=verdict)
        return [_settled(result) for result in judged]


@dataclass(frozen=True, slots=True)
class ThresholdPolicy(Policy):
    """Judge values against fixed thresholds, by metric (``psi``) or by metric and feature (``psi:age``)."""

    thresholds: Mapping[str, float] = field(default_factory=dict)

    def judge(self, results: Sequence[Result], alpha: float) -> list[Result]:  # noqa: ARG002 - spends nothing
        """Return the results with a threshold judged; all others without a verdict are only shown."""
        return [self._judged(result) for result in results]

    def prepared(self, parameters: Parameters) -> Parameters:
        """Return the parameters with every metric that has a threshold asked for.

        Raises PolicyInvalidError where a threshold cannot judge what it names.
        """
        for name in self.thresholds:
            if reason := parameters.without_threshold(name.partition(":")[0]):
                raise PolicyInvalidError(reason)
        if "also" not in type(parameters).model_fields:
            return parameters
        named = list(dict.fromkeys(name.partition(":")[0] for name in self.thresholds))
        document = parameters.model_dump(by_alias=True)
        return type(parameters).model_validate(document | {"also": list(dict.fromkeys([*document["also"], *named]))})

    def thresholds_of(self, metric: str, column: Column) -> dict[str, float]:  # noqa: ARG002 - any may have one
        """Return the thresholds that hold for a column, those of its name before those of all."""
        named = ((name.partition(":"), value) for name, value in sorted(self.thresholds.items()))
        return {name: value for (name, _, feature), value in named if feature in ("", column.label)}

    def _judged(self, result: Result) -> Result:
        if result.value is None or result.rule is not None:
            return result
        threshold = self.thresholds.get(
            f"{result.metric}:{result.subject.feature or result.subject.attribute}", self.thresholds.get(result.metric)
        )
        if threshold is None:
            return _shown_only(result)
        violated = worse(result.value, threshold, result.direction)
        return replace(
            result,
            decides=True,
            rule=Rule.THRESHOLD,
            threshold=threshold,
            verdict=Verdict.VIOLATED if violated else Verdict.OK,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerPolicy(Policy):
    """Judge by the rules of a Model Monitor constraints file, its ``monitoring_config``.

    Numbers by ``ks`` (Simple) or ``linf_robust`` (Robust), categories by ``linf``, ``linf_robust`` or, ChiSquared, by
    the p-value of ``sagemaker_chisquared``, which violates below the threshold. Of data quality completeness against
    the baseline's own, types and unknown categories by a share: from 0.5 on it is the share that must match, below it
    is what may differ (older files say 1.0 and mean all, newer ones 0.1 and mean a tenth; the note says which).
    ``features`` holds what a file says of single features: another completeness, and ``monitoringConfigOverrides``.
    """

    numeric: str = "ks"
    categorical: str = "linf"
    numeric_threshold: float = 0.1
    categorical_threshold: float = 0.1
    datatype_threshold: float = 0.1
    domain_threshold: float = 0.1
    compares: bool = True
    evaluates: bool = True
    features: Mapping[str, FeatureRules] = field(default_factory=dict)

    def of(self, feature: str | None) -> SageMakerPolicy:
        """Return the policy of a feature: its own where the file overrides the common one."""
        own = self.features.get(feature or "")
        return self if own is None else own.policy

    def prepared(self, parameters: Parameters) -> Parameters:
        """Return the parameters with SageMaker's distances as what decides; per-column methods give way to them."""
        if "methods" not in type(parameters).model_fields:
            return parameters
        methods = {"numeric": self.numeric, "categorical": self.categorical}
        methods |= {name: own.method for name, own in self.features.items() if own.method}
        document = parameters.model_dump(by_alias=True)
        return type(parameters).model_validate(document | {"methods": methods})

    def judge(self, results: Sequence[Result], alpha: float) -> list[Result]:  # noqa: ARG002 - spends nothing
        """Return the results that SageMaker has a rule for judged; all others without a verdict are only shown."""
        return [self._judged(result) for result in results]

    def thresholds_of(self, metric: str, column: Column) -> dict[str, float]:
        """Return the threshold of the column's distance."""
        threshold = self.of(column.label).threshold(metric, column.type)
        return {} if threshold is None else {metric: threshold}

    def threshold(self, metric: str, type_: Type | None) -> float | None:
        """Return what a distance of a column is compared with, None where SageMaker has no rule for it."""
        if not (self.evaluates and self.compares):
            return None
        numeric = type_ in (Type.NUMERIC, Type.DATETIME)
        if metric != (self.numeric if numeric else self.categorical):
            return None
        return self.numeric_threshold if numeric else self.categorical_threshold

    def _judged(self, result: Result) -> Result:
        if result.value is None or result.rule is not None:
            return result
        own = self.features.get(result.subject.feature or "")
        threshold, note = self.of(result.subject.feature).rule(result, None if own is None else own.completeness)
        if threshold is None or result.subject.scale > 1:
            return _shown_only(result)
        violated = worse(result.value, threshold, result.direction, ratio=result.unit == RATIO)
        return replace(
            result,
            decides=True,
            rule=Rule.SAGEMAKER,
            threshold=threshold,
            verdict=Verdict.VIOLATED if violated else Verdict.OK,
            note="; ".join(part for part in (result.note, note) if part),
        )

    def rule(self, result: Result, completeness: float | None = None) -> tuple[float | None, str]:
        """Return what a result is compared with, None where nothing is, and how the file's number was read.

        ``completeness`` is what the file asks of the feature; by default as much as the baseline had.
        """
        if not self.evaluates:
            return None, ""
        if result.metric == "completeness":
            return result.baseline_value if completeness is None else completeness, ""
        if result.metric == "wrong_type":
            return _tolerance("datatype_check_threshold", self.datatype_threshold)
        if result.metric == "new_categories":
            return _tolerance("domain_content_threshold", self.domain_threshold)
        return self.threshold(result.metric, result.type), ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRules:
    """What a constraints file says of one feature: the policy that holds for it, its distance, its completeness."""

    policy: SageMakerPolicy
    method: str = ""
    """The distance that decides, where it is another than that of the other features."""
    completeness: float | None = None


def _tolerance(name: str, value: float) -> tuple[float, str]:
    """Return the share that may differ, and how SageMaker's number was read."""
    if value >= REQUIRED_SHARE:
        return 1.0 - value, f"{name} {value:g} is read as the share that must match"
    return value, f"{name} {value:g} is read as the share that may differ"


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """Return the policy of a monitor's ``policy`` member; an empty one is the budget in equal shares.

    Raises PolicyInvalidError.
    """
    if not document:
        return BudgetPolicy()
    if len(document) != 1:
        raise PolicyInvalidError(
            f"a policy is one of budget, threshold or sagemaker, not {', '.join(sorted(document))}"
        )
    ((name, body),) = document.items()
    parse = {"budget": _budget, "threshold": _thresholds, "sagemaker": _sagemaker}.get(name)
    if parse is None:
        raise PolicyInvalidError(f"there is no policy {name}; there are budget, threshold and sagemaker")
    if not isinstance(body, Mapping):
        raise PolicyInvalidError(f"the policy {name} must be an object")
    return parse(body)


def _sagemaker(body: Mapping[str, Any]) -> SageMakerPolicy:
    """Return the policy of a ``monitoring_config``, or of a constraints file with what it says of single features."""
    if not {"monitoring_config", "features"} & set(body):
        return _monitoring(body)
    _known(body, SAGEMAKER_FILE, "a sagemaker policy")
    config, features = body.get("monitoring_config", {}), body.get("features", [])
    common = _monitoring(config)
    if not isinstance(features, Sequence) or not all(isinstance(each, Mapping) and "name" in each for each in features):
        raise PolicyInvalidError("features of a sagemaker policy is a constraints file's list of objects with a name")
    return replace(common, features={str(each["name"]): _feature(each, config, common) for each in features})


def _feature(body: Mapping[str, Any], config: Mapping[str, Any], common: SageMakerPolicy) -> FeatureRules:
    """Return what a constraints file says of one feature.

    `is_non_negative` is a fact of the baseline that Model Monitor has no check for, and it has none here.
    """
    name, override = str(body["name"]), body.get("monitoringConfigOverrides", {})
    _known(body, SAGEMAKER_FEATURE, f"the feature {name}")
    if not isinstance(override, Mapping) or not isinstance(override.get("distribution_constraints", {}), Mapping):
        raise PolicyInvalidError(f"monitoringConfigOverrides of {name} must be an object like monitoring_config")
    if (body.get("string_constraints") or {}).get("domains"):
        raise PolicyInvalidError(
            f"the domains of {name} are a constraint of the baseline and not of the policy: put them there, as "
            f'PUT …/baselines/<name>/constraints {{"{name}": {{"domain": {{"values": […]}}}}}}'
        )
    distances = {**config.get("distribution_constraints", {}), **override.get("distribution_constraints", {})}
    own = _monitoring({**config, **override, "distribution_constraints": distances})
    method = ""
    if (own.numeric, own.categorical) != (common.numeric, common.categorical):
        methods = {"Integral": own.numeric, "Fractional": own.numeric, "String": own.categorical}
        method = methods.get(str(body.get("inferred_type")), "")
        if not method:
            raise PolicyInvalidError(
                f"{name} is compared by a method of its own, so its inferred_type must be {', '.join(methods)}"
            )
    completeness = _share(body, "completeness", 0.0) if "completeness" in body else None
    return FeatureRules(policy=own, method=method, completeness=completeness)


def _monitoring(config: object) -> SageMakerPolicy:
    """Return the policy of a ``monitoring_config``, with Model Monitor's defaults for what it leaves out."""
    distances = config.get("distribution_constraints", {}) if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(distances, Mapping):
        raise PolicyInvalidError("a sagemaker policy is the monitoring_config of a constraints file, an object")
    _known(config, SAGEMAKER_NAMES, "monitoring_config")
    _known(distances, SAGEMAKER_DISTANCES, "distribution_constraints")
    robust = _choice(distances, "comparison_method", ("Simple", "Robust")) == "Robust"
    chisquared = _choice(distances, "categorical_drift_method", ("LInfinity", "ChiSquared")) == "ChiSquared"
    numeric = _share(distances, "comparison_threshold", 0.1)
    return SageMakerPolicy(
        numeric="linf_robust" if robust else "ks",
        categorical="sagemaker_chisquared" if chisquared else "linf_robust" if robust else "linf",
        numeric_threshold=numeric,
        categorical_threshold=_share(distances, "categorical_comparison_threshold", numeric),
        datatype_threshold=_share(config, "datatype_check_threshold", 0.1),
        domain_threshold=_share(config, "domain_content_threshold", 0.1),
        compares=_choice(distances, "perform_comparison", ("Enabled", "Disabled")) == "Enabled",
        evaluates=_choice(config, "evaluate_constraints", ("Enabled", "Disabled")) == "Enabled",
    )


def _known(body: Mapping[str, Any], names: frozenset[str], where: str) -> None:
    if unknown := set(body) - names:
        raise PolicyInvalidError(f"{where} has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(names))}")


def _choice(body: Mapping[str, Any], name: str, values: tuple[str, ...]) -> str:
    value = body.get(name, values[0])
    if value not in values:
        raise PolicyInvalidError(f"{name} must be {' or '.join(values)}, not {value!r}")
    return str(value)


def _share(body: Mapping[str, Any], name: str, default: float) -> float:
    value = body.get(name, default)
    if not _number(value) or not 0 <= value <= 1:
        raise PolicyInvalidError(f"{name} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _budget(body: Mapping[str, Any]) -> BudgetPolicy:
    if unknown := set(body) - {"share"}:
        raise PolicyInvalidError(f"a budget policy has only a share, not {', '.join(sorted(unknown))}")
    share = body.get("share")
    if share is None:
        return BudgetPolicy()
    if not _number(share) or not 0 < share <= 1:
        raise PolicyInvalidError(f"the share of a budget must be above 0 and at most 1, not {share!r}")
    return BudgetPolicy(float(share))


def _thresholds(body: Mapping[str, Any]) -> ThresholdPolicy:
    if not body:
        raise PolicyInvalidError('a threshold policy names at least one metric, e.g. {"threshold": {"psi": 0.2}}')
    for name, value in body.items():
        if not _number(value):
            raise PolicyInvalidError(f"the threshold of {name} must be a finite number, not {value!r}")
    return ThresholdPolicy({str(name): float(value) for name, value in body.items()})


def holm(p_values: Sequence[float], alpha: float) -> list[tuple[float, bool]]:
    """Return for each p-value the level it is compared with and whether it is rejected, by Holm's method.

    The smallest of m is compared with alpha / m, the next with alpha / (m - 1), and so on until one is not rejected;
    the level of that one stands for all that follow. The chance of any false rejection is at most alpha.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    levels: list[tuple[float, bool]] = [(alpha, False)] * len(p_values)
    going, level = True, alpha
    for rank, place in enumerate(order):
        if going:
            level = alpha / (len(p_values) - rank)
            going = p_values[place] <= level
        levels[place] = (level, going)
    return levels


def worse(value: float, threshold: float, direction: Direction, *, ratio: bool = False) -> bool:
    """Whether a value lies on the bad side of a threshold, which itself is still good.

    Of a ratio the threshold is a ratio too: with 0.8 and with 1.25 good is what lies between the two.
    """
    if ratio and direction is Direction.DISTANCE_FROM_ONE:
        return value <= 0 or (threshold > 0 and abs(log(value)) > abs(log(threshold)) + 1e-12)
    if direction is Direction.HIGHER_IS_WORSE:
        return value > threshold
    if direction is Direction.LOWER_IS_WORSE:
        return value < threshold
    return abs(value - (1.0 if direction is Direction.DISTANCE_FROM_ONE else 0.0)) > threshold


def window_alpha(budget: Mapping[str, Any], window: timedelta, share: float) -> float:
    """Return the level at which a monitor judges one window: its share of ``min(at_most * window / per, 0.05)``.

    ``window`` is the time between two windows where they overlap. Raises PolicyInvalidError.
    """
    per, at_most = duration(budget.get("per", "30d")), budget.get("at_most", 1)
    if not _number(at_most) or at_most <= 0:
        raise PolicyInvalidError(f"at_most must be a number above 0, not {at_most!r}")
    if not 0 < share <= 1:
        raise PolicyInvalidError(f"a share must be above 0 and at most 1, not {share!r}")
    if window <= timedelta(0):
        raise PolicyInvalidError(f"a window must be longer than nothing, not {window}")
    return min(float(at_most) * (window / per), MOST_ALPHA) * share


def duration(text: object) -> timedelta:
    """Return the length of a text such as ``12h``, ``30d``, ``4w``, ``1mo``, ``1y``; raise PolicyInvalidError."""
    found = re.fullmatch(r"([1-9]\d{0,5})(h|d|w|mo|y)", text.strip()) if isinstance(text, str) else None
    if found is None:
        raise PolicyInvalidError(f"a length of time is written 12h, 30d, 4w, 1mo or 1y, not {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def share_of(name: str, declared: Mapping[str, float | None], versions: int = 1) -> float:
    """Return the share of the budget that one of a model's monitors spends on each version.

    ``declared`` holds the enabled monitors that judge by budget, with the share each was given or None. Given shares
    are kept, scaled down where they sum to more than 1; what they leave is split equally among the others, which get
    at least an equal part of one hundredth of the budget each where nothing is left.
    """
    given = {monitor: share for monitor, share in declared.items() if share is not None}
    silent = len(declared) - len(given)
    floor = 0.01 * silent
    total = sum(given.values())
    room = 1.0 - floor
    scale = min(1.0, room / total) if total > 0 else 1.0
    own = given.get(name)
    share = own * scale if own is not None else (1.0 - total * scale) / max(silent, 1)
    return share / max(versions, 1)


def _awaits(result: Result) -> bool:
    """Whether a result was measured to be judged and its kind has not judged it."""
    return (
        result.value is not None and result.decides and result.rule is None and result.verdict is Verdict.NOT_MEASURED
    )


def _settled(result: Result) -> Result:
    """Return a result that Holm's method had no say in: ok where nothing happened, else shown without a verdict."""
    if result.value is None or not result.decides or result.rule is not None:
        return result
    return replace(result, rule=Rule.BUDGET) if result.verdict is Verdict.OK else _shown_only(result)


def _shown_only(result: Result) -> Result:
    return replace(result, decides=False, verdict=None) if result.value is not None else result


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
