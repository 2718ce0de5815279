"""Evidently's stat tests by their names, called directly on the row samples: the same digits as in its reports."""

from dataclasses import dataclass
from typing import ClassVar

from monitors.contract import Type
from monitors.evidently import BOTH, CATEGORIES, NUMBERS, TEXTS, EvidentlyDistance, EvidentlyTest


@dataclass(frozen=True, kw_only=True)
class Psi(EvidentlyDistance):
    """Population stability index in Evidently's bins: Sturges's over both samples, or one per value up to twenty."""

    name: ClassVar[str] = "evidently_psi"
    method: ClassVar[str] = "psi"
    types: ClassVar[frozenset[Type]] = BOTH
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class JensenShannon(EvidentlyDistance):
    """Jensen-Shannon distance by natural logarithms, at most 0.8326, in Evidently's bins."""

    name: ClassVar[str] = "evidently_jensenshannon"
    method: ClassVar[str] = "jensenshannon"
    types: ClassVar[frozenset[Type]] = BOTH
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class KullbackLeibler(EvidentlyDistance):
    """Kullback-Leibler divergence of the baseline from the window in Evidently's bins."""

    name: ClassVar[str] = "evidently_kl_div"
    method: ClassVar[str] = "kl_div"
    types: ClassVar[frozenset[Type]] = BOTH
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class Hellinger(EvidentlyDistance):
    """Hellinger distance; of numbers over Sturges's bins of the distinct values."""

    name: ClassVar[str] = "evidently_hellinger"
    method: ClassVar[str] = "hellinger"
    types: ClassVar[frozenset[Type]] = BOTH
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class Wasserstein(EvidentlyDistance):
    """Wasserstein distance of the rows, in the baseline's standard deviations."""

    name: ClassVar[str] = "evidently_wasserstein"
    method: ClassVar[str] = "wasserstein"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class Energy(EvidentlyDistance):
    """Energy distance of the rows, in the root of the column's unit."""

    name: ClassVar[str] = "evidently_ed"
    method: ClassVar[str] = "ed"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class KolmogorovSmirnov(EvidentlyTest):
    """p-value of the two-sample Kolmogorov-Smirnov test."""

    name: ClassVar[str] = "evidently_ks"
    method: ClassVar[str] = "ks"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.05


@dataclass(frozen=True, kw_only=True)
class AndersonDarling(EvidentlyTest):
    """p-value of the two-sample Anderson-Darling test, kept between 0.001 and 0.25."""

    name: ClassVar[str] = "evidently_anderson"
    method: ClassVar[str] = "anderson"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class CramerVonMises(EvidentlyTest):
    """p-value of the two-sample Cramér-von Mises test."""

    name: ClassVar[str] = "evidently_cramer_von_mises"
    method: ClassVar[str] = "cramer_von_mises"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class ChiSquare(EvidentlyTest):
    """p-value of a chi-square test that takes the baseline as exact, so it alarms on stable columns."""

    name: ClassVar[str] = "evidently_chisquare"
    method: ClassVar[str] = "chisquare"
    types: ClassVar[frozenset[Type]] = CATEGORIES
    threshold: ClassVar[float] = 0.05


@dataclass(frozen=True, kw_only=True)
class GTest(EvidentlyTest):
    """p-value of a G test that takes the baseline as exact; samples are cut to one size, which it needs."""

    name: ClassVar[str] = "evidently_g_test"
    method: ClassVar[str] = "g_test"
    types: ClassVar[frozenset[Type]] = CATEGORIES
    threshold: ClassVar[float] = 0.1
    equal: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class TwoProportions(EvidentlyTest):
    """p-value of the test of two proportions: of the first category against the rest."""

    name: ClassVar[str] = "evidently_z"
    method: ClassVar[str] = "z"
    types: ClassVar[frozenset[Type]] = CATEGORIES
    threshold: ClassVar[float] = 0.05


@dataclass(frozen=True, kw_only=True)
class TotalVariation(EvidentlyTest):
    """p-value of a permutation test of the total variation distance, on 2,000 rows of each sample."""

    name: ClassVar[str] = "evidently_TVD"
    method: ClassVar[str] = "TVD"
    types: ClassVar[frozenset[Type]] = CATEGORIES
    threshold: ClassVar[float] = 0.1
    most_rows: ClassVar[int] = 2000


@dataclass(frozen=True, kw_only=True)
class EppsSingleton(EvidentlyTest):
    """p-value of the Epps-Singleton test of the two characteristic functions."""

    name: ClassVar[str] = "es"
    method: ClassVar[str] = "es"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.05


@dataclass(frozen=True, kw_only=True)
class TTest(EvidentlyTest):
    """p-value of Student's test of the two means."""

    name: ClassVar[str] = "t_test"
    method: ClassVar[str] = "t_test"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.05


@dataclass(frozen=True, kw_only=True)
class MannWhitney(EvidentlyTest):
    """p-value of the Mann-Whitney test that the baseline's values are the smaller ones, one-sided as in Evidently."""

    name: ClassVar[str] = "mannw"
    method: ClassVar[str] = "mannw"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.05


@dataclass(frozen=True, kw_only=True)
class EmpiricalMMD(EvidentlyTest):
    """p-value of a permutation test of the maximum mean discrepancy, on 1,000 rows of each sample."""

    name: ClassVar[str] = "empirical_mmd"
    method: ClassVar[str] = "empirical_mmd"
    types: ClassVar[frozenset[Type]] = NUMBERS
    threshold: ClassVar[float] = 0.1
    most_rows: ClassVar[int] = 1000


@dataclass(frozen=True, kw_only=True)
class FisherExact(EvidentlyTest):
    """p-value of Fisher's exact test of two categories; samples are cut to one size, which it needs."""

    name: ClassVar[str] = "fisher_exact"
    method: ClassVar[str] = "fisher_exact"
    types: ClassVar[frozenset[Type]] = CATEGORIES
    threshold: ClassVar[float] = 0.1
    equal: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class TextContentShare(EvidentlyDistance):
    """ROC AUC of a classifier that tells the window's texts from the baseline's, against random classifiers."""

    name: ClassVar[str] = "perc_text_content_drift"
    method: ClassVar[str] = "perc_text_content_drift"
    types: ClassVar[frozenset[Type]] = TEXTS
    threshold: ClassVar[float] = 0.95


@dataclass(frozen=True, kw_only=True)
class TextContent(EvidentlyDistance):
    """ROC AUC of a classifier that tells the window's texts from the baseline's."""

    name: ClassVar[str] = "abs_text_content_drift"
    method: ClassVar[str] = "abs_text_content_drift"
    types: ClassVar[frozenset[Type]] = TEXTS
    threshold: ClassVar[float] = 0.55
