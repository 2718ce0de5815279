"""What the log knows of a model while records come in: its task, its classes, the types of each version's features."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.tables import FeatureRow, ModelRow, VersionRow

NUMERIC, CATEGORICAL, BOOLEAN, DATETIME, TEXT, EMBEDDING = (
    "numeric",
    "categorical",
    "boolean",
    "datetime",
    "text",
    "embedding",
)


@dataclass(frozen=True, slots=True)
class Feature:
    """The type of a feature and how much of it is kept."""

    type: str
    store: str = "keep"


@dataclass(frozen=True, slots=True)
class VersionSchema:
    """A version by its row's id, and its features by name."""

    id: int
    features: Mapping[str, Feature] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """A model by its row's id, and what decides how its records are read."""

    id: int
    name: str
    task: str
    classes: tuple[str, ...] | None = None
    positive_class: str | None = None
    threshold: float = 0.5
    refuses: bool = False
    """Whether a bad value costs its record (``on_bad_value: reject``)."""
    active: str | None = None
    versions: Mapping[str, VersionSchema] = field(default_factory=dict)

    @property
    def logical(self) -> bool:
        """Whether true and false are the classes 1 and 0."""
        return self.classes is not None and {"0", "1"} <= set(self.classes)

    @property
    def flat(self) -> bool:
        """Whether JSON records may come as flat columns too: not where a text may spell a set of labels."""
        return self.task != "multilabel"

    def features(self, version: str) -> Mapping[str, Feature]:
        """Return the features of a version; a version not met before starts as a copy of the active one."""
        known = self.versions.get(version) or self.versions.get(self.active or "")
        return known.features if known else {}


def load(session: Session, name: str) -> ModelSchema | None:
    """Read a model that is not archived; none where there is no such model."""
    model = session.execute(
        select(
            ModelRow.id,
            ModelRow.task,
            ModelRow.classes,
            ModelRow.positive_class,
            ModelRow.decision_threshold,
            ModelRow.on_bad_value,
            ModelRow.active_version_id,
        ).where(ModelRow.name == name, ModelRow.archived_at.is_(None))
    ).first()
    if model is None:
        return None
    names = dict(session.execute(select(VersionRow.id, VersionRow.name).where(VersionRow.model_id == model.id)).all())
    features: dict[int, dict[str, Feature]] = {number: {} for number in names}
    for row in session.execute(
        select(FeatureRow.version_id, FeatureRow.name, FeatureRow.type, FeatureRow.store)
        .join(VersionRow, VersionRow.id == FeatureRow.version_id)
        .where(VersionRow.model_id == model.id)
        .order_by(FeatureRow.position, FeatureRow.id)
    ):
        features[row.version_id][row.name] = Feature(row.type, row.store)
    return ModelSchema(
        id=model.id,
        name=name,
        task=model.task,
        classes=None if model.classes is None else tuple(str(label) for label in model.classes),
        positive_class=model.positive_class,
        threshold=model.decision_threshold,
        refuses=model.on_bad_value == "reject",
        active=names.get(model.active_version_id),
        versions={label: VersionSchema(number, features[number]) for number, label in names.items()},
    )
