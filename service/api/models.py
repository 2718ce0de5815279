"""Models: what users deploy and want watched."""

from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import baselines
from service.access import Principal
from service.api.bodies import Body, Duration, Label, Name, Part, Short, Text, validated
from service.api.depends import (
    Configurer,
    Page,
    Parts,
    Reader,
    audit,
    check_match,
    etag,
    listed,
    model_named,
    page_of,
    visible,
)
from service.assembly import Assembly
from service.problems import Conflict, NotFound, ScopeMissing
from service.tables import FeatureRow, ModelRow, VersionRow
from service.words import format_time, new_id

router = APIRouter(prefix="/v1/models", tags=["models"])

Task = Literal["binary", "multiclass", "multilabel", "regression"]
BUDGET: dict[str, Any] = {"per": "30d", "at_most": 1}
Kept = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,5}(h|d|w|mo|y)$")]


class Feature(Part):
    """A feature of a schema."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    type: Literal["numeric", "categorical", "boolean", "datetime", "text", "embedding"]
    required: bool = False
    range: tuple[float | None, float | None] | None = None
    categories: Annotated[list[Label], Field(max_length=1000)] | None = None
    store: Literal["keep", "hash", "profile_only", "drop"] = "keep"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.range is not None:
            low, high = self.range
            if self.type not in ("numeric", "datetime"):
                raise ValueError("only numbers and times have a range")
            if low is not None and high is not None and low > high:
                raise ValueError("the range ends before it begins")
        if self.categories is not None and self.type not in ("categorical", "boolean"):
            raise ValueError("only categorical features have categories")
        return self


class Schema(Body):
    """The features of a version."""

    features: Annotated[list[Feature], Field(max_length=2000)]
    on_bad_value: Literal["missing", "reject"] | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "features": [
                        {"name": "age", "type": "numeric", "required": True, "range": [18, 120]},
                        {"name": "job", "type": "categorical", "categories": ["clerk", "nurse"]},
                    ]
                }
            ]
        }
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [feature.name for feature in self.features]
        if twice := sorted({name for name in names if names.count(name) > 1} if len(names) < 2001 else ()):
            raise ValueError(f"features are named twice: {', '.join(twice[:10])}")
        return self


class Attribute(Part):
    """A protected attribute: by name, with cuts where it is a number, and the group that others are compared with."""

    name: Short
    cuts: Annotated[list[float], Field(min_length=1, max_length=20)] | None = None
    values: Annotated[list[Label], Field(min_length=1, max_length=64)] | None = None
    reference: Label | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cuts is not None and self.values is not None:
            raise ValueError("an attribute has cuts or values, not both")
        if self.cuts is not None and any(a >= b for a, b in zip(self.cuts, self.cuts[1:], strict=False)):
            raise ValueError("cuts increase")
        return self


class Crossing(Part):
    """Two or three protected attributes taken together."""

    crossed: Annotated[list[Short], Field(min_length=2, max_length=3)]


class Direction(Part):
    """Which values of a regression are good for the person."""

    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("say above or below")
        return self


class AlarmBudget(Part):
    """How many false alarms are accepted in how long a time."""

    per: Duration = "30d"
    at_most: Annotated[float, Field(gt=0, le=1000)] = 1


class Retention(Part):
    """How long rows, profiles and results are kept: for good, since nothing is removed by its age yet."""

    rows: Kept | None = None
    profiles: Kept | None = None
    results: Kept | None = None

    @model_validator(mode="after")
    def _is_for_good(self) -> Self:
        if self.model_dump(exclude_none=True):
            raise ValueError("nothing is removed by its age yet: leave retention out, and everything is kept for good")
        return self


class ModelPatch(Body):
    """What of a model can be changed; members left out stay."""

    description: Text = ""
    tags: Annotated[dict[Short, Short], Field(max_length=64)] = Field(default_factory=dict)
    aliases: Annotated[list[Name], Field(max_length=16)] = Field(default_factory=list)
    classes: Annotated[list[Label], Field(min_length=2, max_length=1000)] | None = None
    positive_class: Label | None = None
    favourable_outcome: Label | Direction | None = None
    decision_threshold: float = 0.5
    protected_attributes: Annotated[list[Short | Attribute | Crossing], Field(max_length=32)] = Field(
        default_factory=list
    )
    group_variable: Short | None = None
    alarm_budget: AlarmBudget = Field(default_factory=AlarmBudget)
    retention: Retention = Field(default_factory=Retention)
    on_bad_value: Literal["missing", "reject"] = "missing"
    note: Text = ""

    model_config = ConfigDict(json_schema_extra={"examples": [{"alarm_budget": {"per": "30d", "at_most": 2}}]})


class ModelBody(ModelPatch):
    """A model as it is declared."""

    name: Name
    task: Task
    schema_: Schema | None = Field(None, alias="schema")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "car-loan",
                    "task": "binary",
                    "description": "Will the customer repay?",
                    "classes": ["0", "1"],
                    "positive_class": "1",
                    "alarm_budget": {"per": "30d", "at_most": 1},
                }
            ]
        }
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.task == "regression":
            if self.classes is not None or self.positive_class is not None:
                raise ValueError("a regression has no classes")
            if isinstance(self.favourable_outcome, str):
                raise ValueError('the favourable outcome of a regression is {"above": x} or {"below": x}')
        else:
            self._consistent_classes()
        names = {each if isinstance(each, str) else getattr(each, "name", "") for each in self.protected_attributes}
        for each in self.protected_attributes:
            if isinstance(each, Crossing) and (unknown := [n for n in each.crossed if n not in names]):
                raise ValueError(f"crossed attributes are declared on their own too; missing: {', '.join(unknown)}")
        return self

    def _consistent_classes(self) -> None:
        if self.classes is not None:
            if len(set(self.classes)) < len(self.classes):
                raise ValueError("classes are different from each other")
            if self.task == "binary" and len(self.classes) != 2:
                raise ValueError("a binary model has two classes")
            for name in ("positive_class", "favourable_outcome"):
                value = getattr(self, name)
                if isinstance(value, str) and value not in self.classes:
                    raise ValueError(f"{name} {value!r} is not one of the classes {', '.join(self.classes)}")
        if self.positive_class is not None and self.task != "binary":
            raise ValueError("only a binary model has a positive class")
        if isinstance(self.favourable_outcome, Direction):
            raise ValueError("the favourable outcome of a classification is one of its classes")

    def columns(self) -> dict[str, Any]:
        """Return what the row keeps."""
        document = self.model_dump(exclude={"schema_"}, exclude_none=False)
        document["protected_attributes"] = [
            each if isinstance(each, str) else each.model_dump(exclude_none=True) for each in self.protected_attributes
        ]
        document["retention"] = self.retention.model_dump(exclude_none=True)
        if isinstance(self.favourable_outcome, Direction):
            document["favourable_outcome"] = self.favourable_outcome.model_dump(exclude_none=True)
        return document


def document_of(session: Session, row: ModelRow) -> dict[str, object]:
    """Return a model as the interface shows it."""
    version = None if row.active_version_id is None else session.get(VersionRow, row.active_version_id)
    return {
        "id": row.uid,
        "name": row.name,
        "task": row.task,
        "description": row.description,
        "tags": row.tags,
        "aliases": row.aliases,
        "classes": row.classes,
        "positive_class": row.positive_class,
        "favourable_outcome": row.favourable_outcome,
        "decision_threshold": row.decision_threshold,
        "protected_attributes": row.protected_attributes,
        "group_variable": row.group_variable,
        "alarm_budget": row.alarm_budget,
        "retention": row.retention,
        "on_bad_value": row.on_bad_value,
        "note": row.note,
        "active_version": None if version is None else version.name,
        "created_at": format_time(row.created_at),
        "archived_at": None if row.archived_at is None else format_time(row.archived_at),
        "revision": row.revision,
    }


def set_features(session: Session, version: VersionRow, features: list[Feature], assembly: Assembly) -> None:
    """Declare features of a version, in this order, all confirmed."""
    for place, feature in enumerate(features):
        session.add(
            FeatureRow(
                version_id=version.id,
                name=feature.name,
                type=feature.type,
                status="confirmed",
                required=feature.required,
                range=None if feature.range is None else list(feature.range),
                categories=feature.categories,
                store=feature.store,
                position=place,
                first_seen_at=assembly.clock.now(),
            )
        )


def make_model(session: Session, assembly: Assembly, principal: Principal, body: ModelBody) -> ModelRow:
    """Make a model in a writing session; a declared schema makes version 1 with it. A taken name is a Conflict."""
    if not principal.sees(body.name):
        raise ScopeMissing("this key is bound to other models")
    taken = session.scalar(select(ModelRow).where(ModelRow.name == body.name))
    if taken is not None:
        state = "archived under this name; restore it or use another" if taken.archived_at else "of this name already"
        raise Conflict(f"there is a model {state}")
    now = assembly.clock.now()
    row = ModelRow(uid=new_id(), created_at=now, **body.columns())
    session.add(row)
    session.flush()
    if body.schema_ is not None:
        version = baselines.ensure_version(session, row, baselines.FIRST_VERSION, now)
        set_features(session, version, body.schema_.features, assembly)
        if body.schema_.on_bad_value is not None:
            row.on_bad_value = body.schema_.on_bad_value
    audit(session, assembly, principal, "model.create", f"models/{row.name}", row)
    return row


@router.post("", status_code=201, operation_id="models_create", summary="Declare a model")
def create(body: ModelBody, response: Response, parts: Parts, principal: Configurer) -> dict[str, object]:
    """Make a model. Versions, schema and classes can be left to the first baseline or the first records."""
    try:
        with parts.database.writing() as session:
            row = make_model(session, parts, principal, body)
            session.flush()
            answer = document_of(session, row)
    except IntegrityError as error:
        raise Conflict("there is a model of this name already") from error
    response.headers["Location"] = f"/v1/models/{body.name}"
    response.headers["ETag"] = etag(row.revision)
    return answer


@router.get("", operation_id="models_list", summary="List models")
def index(
    parts: Parts,
    principal: Reader,
    page: Page,
    task: Annotated[Task | None, Query(description="Only models of this task.")] = None,
    archived: Annotated[bool, Query(description="Archived models instead of living ones.")] = False,
) -> dict[str, object]:
    """List the models that the key may see, by name."""
    statement = select(ModelRow).where(
        ModelRow.archived_at.is_not(None) if archived else ModelRow.archived_at.is_(None)
    )
    if task is not None:
        statement = statement.where(ModelRow.task == task)
    with parts.database.reading() as session:
        rows, cursor = page_of(session, visible(principal, statement), [ModelRow.name], page)
        return listed([document_of(session, row) for row in rows], cursor)


@router.get("/{model}", operation_id="models_read", summary="Read a model")
def read(model: str, response: Response, parts: Parts, principal: Reader) -> dict[str, object]:
    """Return a model; an archived one too."""
    with parts.database.reading() as session:
        row = model_named(session, principal, model, archived=True)
        response.headers["ETag"] = etag(row.revision)
        return document_of(session, row)


@router.patch("/{model}", operation_id="models_update", summary="Change a model")
def update(
    model: str, body: ModelPatch, request: Request, response: Response, parts: Parts, principal: Configurer
) -> dict[str, object]:
    """Change what the body names; name and task stay. A new alarm budget counts from the next window on."""
    with parts.database.writing() as session:
        row = model_named(session, principal, model)
        check_match(request, row.revision)
        changed = body.model_dump(exclude_unset=True)
        current = {name: getattr(row, name) for name in ModelPatch.model_fields}
        whole: ModelBody = validated(ModelBody, {**current, **changed, "name": row.name, "task": row.task})
        before = {name: current[name] for name in changed}
        for name, value in whole.columns().items():
            setattr(row, name, value)
        row.revision += 1
        if {"favourable_outcome", "protected_attributes", "group_variable"} & set(changed):
            session.flush()
            baselines.replan_groups(session, parts.lake, row, parts.clock.now())
        audit(session, parts, principal, "model.update", f"models/{row.name}", row, before=before, after=changed)
        session.flush()
        response.headers["ETag"] = etag(row.revision)
        return document_of(session, row)


@router.delete("/{model}", status_code=204, operation_id="models_archive", summary="Archive a model")
def archive(model: str, request: Request, parts: Parts, principal: Configurer) -> None:
    """Take a model out of sight; nothing is removed, and it can be restored for 30 days."""
    with parts.database.writing() as session:
        row = model_named(session, principal, model)
        check_match(request, row.revision)
        row.archived_at = parts.clock.now()
        row.revision += 1
        audit(session, parts, principal, "model.archive", f"models/{row.name}", row)


@router.post("/{model}/restore", operation_id="models_restore", summary="Restore an archived model")
def restore(model: str, parts: Parts, principal: Configurer) -> dict[str, object]:
    """Undo the archiving of a model."""
    with parts.database.writing() as session:
        row = model_named(session, principal, model, archived=True)
        if row.archived_at is None:
            raise NotFound(f"model {model!r} is not archived")
        row.archived_at = None
        row.revision += 1
        audit(session, parts, principal, "model.restore", f"models/{row.name}", row)
        session.flush()
        return document_of(session, row)
