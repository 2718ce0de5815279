"""Records of any format -> the typed columns of the log: what is kept, what was missing and why, what was refused."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple
from numba import njit
from numpy.typing import NDArray

from service.database import from_microseconds
from service.ingest import values
from service.ingest.hashing import Key, hash_ids, hash_key, text_buffers
from service.ingest.schemas import CATEGORICAL, NUMERIC, TEXT, Feature, ModelSchema
from service.ingest.values import MOMENT, NON_FINITE, NOTHING, WRONG_TYPE, Rows, Typed
from service.words import NAME, format_time

PREDICTIONS, GROUND_TRUTH, PROTECTED = "predictions", "ground_truth", "protected"
FEATURES = 2_000
TAGS = 100
CLASSES = 1_000
VERSIONS = 1_000
IDENTIFIER = 256
EARLIEST = -2_208_988_800_000_000
"""1900 in microseconds since 1970; what is before is a slip, and would make windows of centuries."""
AHEAD = 5 * 60 * 1_000_000
"""How far ahead of the clock a time may lie, microseconds."""
_MEMBERS = ("features", "scores", "tags", "attributions", "protected")
_ROLES = ("prediction_id", "timestamp", "version", "prediction", "score", "ground_truth", "subject")


class Record(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A record as JSON gives it; nothing is checked yet."""

    prediction_id: Any = None
    timestamp: Any = None
    version: Any = None
    features: Any = None
    prediction: Any = None
    score: Any = None
    scores: Any = None
    ground_truth: Any = msgspec.UNSET
    attributions: Any = None
    protected: Any = None
    subject: Any = None
    tags: Any = None


_FIELDS = Record.__struct_fields__


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why records are not kept: one code, place and sentence for all of the rows."""

    rows: Rows
    code: str
    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Faults:
    """Rows whose value under a label is missing although something was sent."""

    rows: Rows
    label: str
    code: str


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one kind and version, ready for the log; ``rows`` are their places in what was sent."""

    kind: str
    version: str | None
    table: pa.Table
    rows: Rows
    hashes: NDArray[np.uint64]
    anonymous: NDArray[np.bool_]
    """Rows whose id was made here, so that nothing can equal them."""


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a body's records."""

    kind: str
    schema: ModelSchema
    parts: tuple[Part, ...]
    refusals: tuple[Refusal, ...]
    faults: tuple[Faults, ...]
    remarks: tuple[Faults, ...]
    """What is counted beside: members and features that are not stored, classes that are not declared."""
    counted: Mapping[str, int]
    """Remarks that belong to no record that was kept."""
    new_features: Mapping[str, Mapping[str, Feature]]
    """By version, in the order they were met."""
    count: int


class Source(Protocol):
    """Records in one form or the other, asked column by column."""

    def __len__(self) -> int: ...
    def chosen(self, rows: Rows) -> "Source":
        """Return the records at these places."""
        ...

    def role(self, name: str) -> Any | None:
        """Return the column of a role, in the source's own form; none where no record has it."""
        ...

    def members(self, name: str, limit: int) -> tuple[list[tuple[str, Any]], Rows, Rows]:
        """Return the columns under an object member, the rows where it is no object, and a row per value left out."""
        ...

    def features(self, known: Mapping[str, Feature]) -> tuple[list[tuple[str, Any]], Rows, Rows]:
        """Return the same for the features, those known first."""
        ...

    def type_of(self, column: Any) -> str | None:
        """Return the feature type that the values speak for."""
        ...

    def typed(self, column: Any, wanted: str) -> Typed:
        """Return a column as a feature type."""
        ...

    def labels(self, column: Any, task: str, *, logical: bool) -> Typed:
        """Return a column as labels."""
        ...

    def identifiers(self, column: Any) -> Typed:
        """Return a column as ids: texts."""
        ...

    def given(self, column: Any) -> NDArray[np.bool_]:
        """Return where a value was sent, null included only where that can be told from an absent one."""
        ...

    def answered(self, column: Any) -> NDArray[np.bool_]:
        """Return where a label was sent, null included: it withdraws the one that was sent before."""
        ...

    def objects(self, name: str) -> tuple[pa.Array, Rows]:
        """Return an object member as JSON texts with sorted keys, and the rows where it is no object of scalars."""
        ...


class Builder:
    """Takes in records, block by block, and puts the columns of each kind and version together."""

    def __init__(self, schema: ModelSchema, kind: str, now: int, key: Key, secret: bytes) -> None:
        self._schema = schema
        self._kind = kind
        self._now = now
        self._key = key
        self._secret = secret
        self._types: dict[str, dict[str, Feature]] = {}
        self._new: dict[str, dict[str, Feature]] = {}
        self._pieces: dict[tuple[str, str | None], list[tuple[pa.Table, _Piece]]] = {}
        self._refusals: list[Refusal] = []
        self._faults: list[Faults] = []
        self._remarks: list[Faults] = []
        self._counted: Counter[str] = Counter()

    @property
    def flat(self) -> bool:
        """Whether JSON records may come as flat columns too."""
        return self._schema.flat

    def refuse(self, rows: Rows, code: str, pointer: str, detail: str) -> None:
        """Keep out records that could not even be read."""
        if len(rows):
            self._refusals.append(Refusal(rows, code, pointer, detail))

    def count(self, code: str, number: int) -> None:
        """Remark on something that costs nobody a record."""
        if number:
            self._counted[code] += number

    def add_records(self, records: Sequence[Record], rows: Rows, *, plain: bool) -> None:
        """Take in JSON records; ``plain`` promises that no value is a boolean, infinite or unreadable."""
        if records:
            self._add(_Records(records, plain), rows)

    def add_table(self, table: pa.Table, rows: Rows, *, textual: bool) -> None:
        """Take in flat columns named as in the interface; ``textual`` where all are texts to be read (CSV)."""
        if table.num_rows:
            columns = {name: _one_chunk(table[name]) for name in table.column_names}
            self._add(_Columns(columns, table.num_rows, textual), rows)

    def finish(self, count: int) -> Built:
        """Return what became of ``count`` records."""
        parts = []
        for (kind, version), pieces in self._pieces.items():
            if len(pieces) == 1:
                table, one = pieces[0]
                parts.append(Part(kind, version, table, one.rows, one.hashes, one.anonymous))
                continue
            table = pa.concat_tables([table for table, _ in pieces], promote_options="default")
            rows = np.concatenate([piece.rows for _, piece in pieces])
            hashes = np.concatenate([piece.hashes for _, piece in pieces])
            anonymous = np.concatenate([piece.anonymous for _, piece in pieces])
            parts.append(Part(kind, version, table, rows, hashes, anonymous))
        return Built(
            kind=self._kind,
            schema=self._schema,
            parts=tuple(parts),
            refusals=tuple(self._refusals),
            faults=tuple(self._faults),
            remarks=tuple(self._remarks),
            counted=self._counted,
            new_features=self._new,
            count=count,
        )

    # --- one block ----------------------------------------------------------------------------------------------------

    def _add(self, source: Source, rows: Rows) -> None:
        count = len(source)
        refused = np.zeros(count, np.bool_)
        ids = self._identifiers(source, rows, refused)
        moments = self._moments(source, rows, refused)
        groups = self._versions(source, rows, refused)
        if self._kind != PREDICTIONS:
            self._subject_matter(source, rows, refused)
        for version, chosen in groups:
            kept = chosen[~refused[chosen]]
            if not len(kept):
                continue
            if len(kept) == count:
                self._add_version(version, source, ids, moments, rows)
            else:
                self._add_version(version, source.chosen(kept), ids.take(pa.array(kept)), moments[kept], rows[kept])

    def _refuse(self, at: Rows, rows: Rows, refused: NDArray[np.bool_], code: str, pointer: str, detail: str) -> None:
        at = at[~refused[at]]
        refused[at] = True
        self.refuse(rows[at], code, pointer, detail)

    def _identifiers(self, source: Source, rows: Rows, refused: NDArray[np.bool_]) -> pa.Array:
        column = source.role("prediction_id")
        found = Typed(pa.nulls(len(source), pa.string())) if column is None else source.identifiers(column)
        self._refuse(
            found.wrong, rows, refused, "bad_prediction_id", "/prediction_id", "prediction_id is a text or left out"
        )
        lengths = np.diff(text_buffers(_text(found.array))[1])
        if len(lengths) and (lengths.min() < 1 or lengths.max() > IDENTIFIER):
            signs = pc.fill_null(pc.utf8_length(found.array), 1).to_numpy(zero_copy_only=False)
            self._refuse(
                np.flatnonzero((signs < 1) | (signs > IDENTIFIER)).astype(np.int64),
                rows,
                refused,
                "bad_prediction_id",
                "/prediction_id",
                f"prediction_id has 1 to {IDENTIFIER} characters",
            )
        if self._kind != PREDICTIONS and found.array.null_count:
            self._refuse(
                np.flatnonzero(found.array.is_null().to_numpy(zero_copy_only=False)).astype(np.int64),
                rows,
                refused,
                "bad_prediction_id",
                "/prediction_id",
                "prediction_id says which prediction is meant and cannot be left out here",
            )
        return _text(found.array)

    def _moments(self, source: Source, rows: Rows, refused: NDArray[np.bool_]) -> NDArray[np.int64]:
        column = source.role("timestamp")
        if column is None:
            return np.full(len(source), self._now, np.int64)
        found = source.typed(column, "datetime")
        self._refuse(
            found.wrong,
            rows,
            refused,
            "bad_timestamp",
            "/timestamp",
            "timestamp is not an RFC 3339 time with an offset, such as 2026-11-22T13:00:00Z",
        )
        moments = values.ticks(found.array)
        if found.array.null_count:
            moments = np.where(found.array.is_valid().to_numpy(zero_copy_only=False), moments, self._now)
        if len(moments) and moments.min() < EARLIEST:
            self._refuse(
                np.flatnonzero(moments < EARLIEST).astype(np.int64),
                rows,
                refused,
                "bad_timestamp",
                "/timestamp",
                "timestamp is before 1900, when nothing was predicted by a deployed model",
            )
        if len(moments) and moments.max() > self._now + AHEAD:
            self._refuse(
                np.flatnonzero(moments > self._now + AHEAD).astype(np.int64),
                rows,
                refused,
                "timestamp_in_future",
                "/timestamp",
                f"timestamp is more than 5 minutes ahead of {format_time(from_microseconds(self._now))}",
            )
        return moments

    def _versions(self, source: Source, rows: Rows, refused: NDArray[np.bool_]) -> list[tuple[str | None, Rows]]:
        column = source.role("version")
        if column is None:
            return [(self._version_without_name(), np.arange(len(source)))]
        found = source.identifiers(column)
        self._refuse(found.wrong, rows, refused, "bad_version", "/version", "version is a name")
        coded = found.array.dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy()
        groups: dict[str | None, list[Rows]] = {}
        for code, name in [*enumerate(coded.dictionary.to_pylist()), (-1, None)]:
            at = np.flatnonzero((codes == code) & ~refused).astype(np.int64)
            if not len(at):
                continue
            if name is not None and not self._may_name(name):
                detail = "a version has 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
                if NAME.match(name):
                    detail = f"the model has {VERSIONS} versions already"
                self._refuse(at, rows, refused, "bad_version", "/version", detail)
                continue
            groups.setdefault(name if name is not None else self._version_without_name(), []).append(at)
        return [(name, np.sort(np.concatenate(parts))) for name, parts in groups.items()]

    def _version_without_name(self) -> str | None:
        return (self._schema.active or "1") if self._kind == PREDICTIONS else None

    def _may_name(self, name: str) -> bool:
        if self._kind != PREDICTIONS:
            return bool(NAME.match(name))
        known = name in self._schema.versions or name in self._types
        return known or (NAME.match(name) is not None and len(self._schema.versions) + len(self._types) < VERSIONS)

    def _subject_matter(self, source: Source, rows: Rows, refused: NDArray[np.bool_]) -> None:
        """Refuse what says nothing: a label that is none, attributes that are no object."""
        if self._kind == GROUND_TRUTH:
            column = source.role("ground_truth")
            given = np.zeros(len(source), np.bool_) if column is None else source.answered(column)
            self._refuse(
                np.flatnonzero(~given).astype(np.int64),
                rows,
                refused,
                "ground_truth_missing",
                "/ground_truth",
                "ground_truth is the label; null withdraws one that was sent",
            )
            if column is not None:
                found = source.labels(column, self._schema.task, logical=self._schema.logical)
                for at in (found.wrong, found.non_finite):
                    self._refuse(
                        at,
                        rows,
                        refused,
                        "bad_ground_truth",
                        "/ground_truth",
                        f"this is not a label of a {self._schema.task} model",
                    )
        else:
            found_texts, wrong = source.objects("protected")
            missing = np.flatnonzero(found_texts.is_null().to_numpy(zero_copy_only=False)).astype(np.int64)
            self._refuse(
                np.union1d(wrong, missing),
                rows,
                refused,
                "bad_protected",
                "/protected",
                "protected is an object of attributes with texts, numbers, booleans or null",
            )

    # --- one version of one block -------------------------------------------------------------------------------------

    def _add_version(
        self, version: str | None, source: Source, ids: pa.Array, moments: NDArray[np.int64], rows: Rows
    ) -> None:
        anonymous = np.zeros(len(source), np.bool_)
        if ids.null_count:
            anonymous = ids.is_null().to_numpy(zero_copy_only=False)
            ids = pc.if_else(ids.is_valid(), ids, pa.array(fresh_ids(len(ids), self._now), pa.string()))
        piece = _Piece(version, ids, hash_ids(ids, self._key), anonymous, moments, rows, self._now)
        if self._kind == GROUND_TRUTH:
            found = source.labels(source.role("ground_truth"), self._schema.task, logical=self._schema.logical)
            self._put(GROUND_TRUTH, piece, {"ground_truth": found.array})
            self._remark_unknown(found.array, rows)
            return
        if self._kind == PROTECTED:
            self._put(PROTECTED, piece, {"attributes": source.objects("protected")[0]})
            return
        columns, faults = self._columns(str(version), source, rows)
        piece, columns, source = self._refuse_bad(piece, columns, source, faults)
        faulty = [fault for fault in faults if len(fault.rows)]
        if not self._schema.refuses:
            columns["faults"] = fault_texts(len(piece.rows), faulty)
            self._faults += [replace(fault, rows=piece.rows[fault.rows]) for fault in faulty]
        if len(piece.rows):
            self._put(PREDICTIONS, piece, columns)
            self._embedded(source, piece)

    def _columns(self, version: str, source: Source, rows: Rows) -> tuple[dict[str, pa.Array], list[Faults]]:
        """Return the columns of what a version's records say, and where a value is missing that was sent."""
        columns: dict[str, pa.Array] = {}
        faults: list[Faults] = []

        def note(label: str, found: Typed) -> pa.Array:
            if len(found.wrong):
                faults.append(Faults(found.wrong, label, WRONG_TYPE))
            if len(found.non_finite):
                faults.append(Faults(found.non_finite, label, NON_FINITE))
            return found.array

        def note_members(name: str, wanted: str, limit: int) -> None:
            members, wrong, over = source.members(name, limit)
            self._remark(rows[over], name, f"{name}_not_stored")
            note(name, Typed(pa.nulls(0), wrong))
            for label, column in members:
                place = f"{name}.{label}"
                columns[place] = note(place, source.typed(column, wanted))

        self._prediction(source, columns, note, rows)
        note_members("scores", NUMERIC, CLASSES)
        types = self._types.setdefault(version, dict(self._schema.features(version)))
        features, wrong, over = source.features(types)
        self._remark(rows[over], "features", "features_not_stored")
        note("features", Typed(pa.nulls(0), wrong))
        for label, column in features:
            feature = types.get(label) or self._met(version, label, source.type_of(column))
            if feature is None:
                sent = np.flatnonzero(source.given(column)).astype(np.int64)
                note(label, Typed(pa.nulls(0), sent))
                continue
            found = note(label, source.typed(column, feature.type))
            if feature.store == "hash" and feature.type in (CATEGORICAL, TEXT):
                found = self._hashed(found, label)
            if feature.store != "drop":
                columns[f"features.{label}"] = found
        note_members("tags", CATEGORICAL, TAGS)
        note_members("attributions", NUMERIC, FEATURES)
        subject = source.role("subject")
        if subject is not None:
            columns["subject"] = self._hashed(note("subject", source.identifiers(subject)), "subject")
        return columns, faults

    def _prediction(self, source: Source, columns: dict[str, pa.Array], note: Any, rows: Rows) -> None:
        schema = self._schema
        column, score = source.role("prediction"), source.role("score")
        if column is not None and schema.task == "regression":
            columns["prediction"] = note("prediction", source.typed(column, NUMERIC))
        elif column is not None:
            columns["prediction"] = note("prediction", source.labels(column, schema.task, logical=schema.logical))
        if score is not None:
            columns["score"] = note("score", source.typed(score, NUMERIC))
            if schema.task == "binary":
                derived = self._decided(columns["score"])
                said = columns.get("prediction")
                columns["prediction"] = derived if said is None else pc.coalesce(said, derived)
        if schema.task != "regression" and "prediction" in columns:
            self._remark_unknown(columns["prediction"], rows)

    def _decided(self, score: pa.Array) -> pa.Array:
        """Return the classes that scores at the decision threshold mean."""
        positive, negative = self._schema.positive_class or "1", "0"
        if self._schema.classes is not None:
            others = [label for label in self._schema.classes if label != positive]
            if len(others) != 1:
                return pa.nulls(len(score), pa.string())
            negative = others[0]
        return pc.if_else(pc.greater_equal(score, self._schema.threshold), positive, negative)

    def _remark_unknown(self, labels: pa.Array, rows: Rows) -> None:
        if self._schema.classes is None or self._schema.task in ("regression", "multilabel"):
            return
        known = pc.is_in(labels, pa.array([*self._schema.classes, None], pa.string()))
        self._remark(rows[~known.to_numpy(zero_copy_only=False)], "prediction", "unknown_class")

    def _remark(self, rows: Rows, label: str, code: str) -> None:
        if len(rows):
            self._remarks.append(Faults(rows, label, code))

    def _met(self, version: str, label: str, kind: str | None) -> Feature | None:
        if kind is None:
            return None
        met = Feature(kind)
        self._types[version][label] = met
        self._new.setdefault(version, {})[label] = met
        return met

    def _hashed(self, array: pa.Array, label: str) -> pa.Array:
        coded = array.dictionary_encode()
        hashed = [text and subject_text(f"{label}\x1f{text}", self._secret) for text in coded.dictionary.to_pylist()]
        return pc.take(pa.array(hashed, pa.string()), coded.indices)

    def _refuse_bad(
        self, piece: "_Piece", columns: dict[str, pa.Array], source: Source, faults: list[Faults]
    ) -> tuple["_Piece", dict[str, pa.Array], Source]:
        """Refuse the records that hold a bad value, where the model's schema asks for that."""
        if not self._schema.refuses or not faults:
            return piece, columns, source
        refused = np.zeros(len(piece.rows), np.bool_)
        for fault in faults:
            prefix = "" if fault.label.split(".")[0] in (*_MEMBERS, *_ROLES) else "/features"
            pointer = f"{prefix}/{fault.label.replace('.', '/') if not prefix else fault.label}"
            detail = f"{fault.label} is not finite" if fault.code == NON_FINITE else f"{fault.label} has another type"
            self._refuse(fault.rows, piece.rows, refused, fault.code, pointer, detail)
        kept = np.flatnonzero(~refused).astype(np.int64)
        columns = {name: array.take(pa.array(kept)) for name, array in columns.items()}
        columns["faults"] = pa.nulls(len(kept), pa.string())
        return piece.chosen(kept), columns, source.chosen(kept)

    def _embedded(self, source: Source, piece: "_Piece") -> None:
        """Put labels and protected attributes that came with predictions where they belong."""
        column = source.role("ground_truth")
        if column is not None:
            found = source.labels(column, self._schema.task, logical=self._schema.logical)
            for at, code in ((found.wrong, WRONG_TYPE), (found.non_finite, NON_FINITE)):
                if len(at):
                    self._faults.append(Faults(piece.rows[at], "ground_truth", code))
            self._put_given(GROUND_TRUTH, piece, "ground_truth", found.array)
        texts, wrong = source.objects("protected")
        if len(wrong):
            self._faults.append(Faults(piece.rows[wrong], "protected", WRONG_TYPE))
        self._put_given(PROTECTED, piece, "attributes", texts)

    def _put_given(self, kind: str, piece: "_Piece", name: str, array: pa.Array) -> None:
        given = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False)).astype(np.int64)
        if len(given):
            chosen = replace(piece.chosen(given), moments=np.full(len(given), self._now, np.int64))
            self._put(kind, chosen, {name: array.take(pa.array(given))})

    def _put(self, kind: str, piece: "_Piece", columns: Mapping[str, pa.Array]) -> None:
        self._pieces.setdefault((kind, piece.version), []).append((piece.table(columns), piece))


@dataclass(frozen=True, slots=True)
class _Piece:
    """What all kinds of rows have."""

    version: str | None
    ids: pa.Array
    hashes: NDArray[np.uint64]
    anonymous: NDArray[np.bool_]
    moments: NDArray[np.int64]
    rows: Rows
    now: int

    def chosen(self, at: Rows) -> "_Piece":
        return replace(
            self,
            ids=self.ids.take(pa.array(at)),
            hashes=self.hashes[at],
            anonymous=self.anonymous[at],
            moments=self.moments[at],
            rows=self.rows[at],
        )

    def table(self, columns: Mapping[str, pa.Array]) -> pa.Table:
        count = len(self.rows)
        if self.version is None:
            version = pa.nulls(count, pa.dictionary(pa.int32(), pa.string()))
        else:
            version = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([self.version]))
        common = {
            "prediction_id": self.ids,
            "id_hash": _fixed(pa.uint64(), self.hashes),
            "timestamp": _fixed(MOMENT, self.moments),
            "received_at": _fixed(MOMENT, np.full(count, self.now, np.int64)),
            "version": version,
        }
        named = common | dict(columns)
        return pa.Table.from_arrays(list(named.values()), names=list(named))


# --- the two forms of records -----------------------------------------------------------------------------------------


class _Records:
    """JSON records as Python objects."""

    def __init__(self, records: Sequence[Record], plain: bool) -> None:
        self._records = records
        self._plain = plain
        self._columns = dict(zip(_FIELDS, zip(*map(astuple, records), strict=True), strict=True))

    def __len__(self) -> int:
        return len(self._records)

    def chosen(self, rows: Rows) -> "_Records":
        return _Records([self._records[row] for row in rows.tolist()], self._plain)

    def role(self, name: str) -> Sequence[Any] | None:
        found = self._columns.get(name, ())
        absent: Any = msgspec.UNSET if name == "ground_truth" else None
        return found if len(found) and found.count(absent) < len(found) else None

    def _objects(self, name: str) -> tuple[Sequence[Any] | None, Rows]:
        found = self.role(name)
        if found is None:
            return None, NOTHING
        if set(map(type, found)) == {dict}:
            return found, NOTHING
        wrong = [row for row, value in enumerate(found) if value is not None and not isinstance(value, dict)]
        return [value if isinstance(value, dict) else {} for value in found], np.array(wrong, np.int64)

    def members(self, name: str, limit: int) -> tuple[list[tuple[str, Any]], Rows, Rows]:
        return self._split(name, {}, limit)

    def features(self, known: Mapping[str, Feature]) -> tuple[list[tuple[str, Any]], Rows, Rows]:
        return self._split("features", known, max(0, FEATURES - len(known)))

    def _split(self, name: str, known: Mapping[str, Any], limit: int) -> tuple[list[tuple[str, Any]], Rows, Rows]:
        found, wrong = self._objects(name)
        if found is None:
            return [], wrong, NOTHING
        first = found[0]
        names = list(first)
        fresh = [label for label in names if label not in known]
        if len(names) > 1 and len(fresh) <= limit and all(map(_storable, fresh)):
            width, pick = len(names), itemgetter(*names)
            try:  # records of one program have the same members
                if set(map(len, found)) == {width}:
                    return list(zip(names, zip(*map(pick, found), strict=True), strict=True)), wrong, NOTHING
            except KeyError:
                pass  # these have not
        names = list(dict.fromkeys(label for members in found for label in members))
        stored = [label for label in names if label in known]
        stored += [label for label in names if label not in known and _storable(label)][:limit]
        over = NOTHING
        if len(stored) < len(names):
            kept = set(stored)
            left = [row for row, members in enumerate(found) for label in members if label not in kept]
            over = np.array(left, np.int64)
        return [(label, [members.get(label) for members in found]) for label in stored], wrong, over

    def type_of(self, column: Any) -> str | None:
        return values.type_of(column)

    def typed(self, column: Any, wanted: str) -> Typed:
        return values.typed(column, wanted, plain=self._plain)

    def labels(self, column: Any, task: str, *, logical: bool) -> Typed:
        sent = [None if value is msgspec.UNSET else value for value in column]
        return values.labels(sent, task, logical=logical, plain=self._plain)

    def identifiers(self, column: Any) -> Typed:
        try:
            return Typed(pa.array(column, pa.string()))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            wrong = [row for row, value in enumerate(column) if value is not None and not isinstance(value, str)]
            kept = [value if isinstance(value, str) else None for value in column]
            return Typed(pa.array(kept, pa.string()), np.array(wrong, np.int64))

    def given(self, column: Any) -> NDArray[np.bool_]:
        absent = (msgspec.UNSET,) if any(value is msgspec.UNSET for value in column) else ()
        return np.array([not any(value is other for other in absent) for value in column], np.bool_)

    def answered(self, column: Any) -> NDArray[np.bool_]:
        return self.given(column)

    def objects(self, name: str) -> tuple[pa.Array, Rows]:
        found, wrong = self._objects(name)
        if found is None:
            return pa.nulls(len(self), pa.string()), NOTHING
        refused = set(wrong.tolist())
        texts: list[str | None] = []
        for row, members in enumerate(found):
            text = None if row in refused or not members else attributes_text(members)
            if text is None and members:
                refused.add(row)
            texts.append(text)
        return pa.array(texts, pa.string()), np.array(sorted(refused), np.int64)


class _Columns:
    """Flat Arrow columns."""

    def __init__(self, columns: Mapping[str, pa.Array], rows: int, textual: bool) -> None:
        self._rows = rows
        self._textual = textual
        self._columns = columns

    def __len__(self) -> int:
        return self._rows

    def chosen(self, rows: Rows) -> "_Columns":
        at = pa.array(rows)
        return _Columns({name: array.take(at) for name, array in self._columns.items()}, len(rows), self._textual)

    def role(self, name: str) -> Any | None:
        array = self._columns.get(name)
        if array is None or (name != "ground_truth" and array.null_count == len(array)):
            return None
        if self._textual and name in ("prediction_id", "timestamp", "version", "subject"):
            return pc.if_else(pc.fill_null(pc.equal(array, ""), True), pa.scalar(None, pa.string()), array)
        return array

    def members(self, name: str, limit: int) -> tuple[list[tuple[str, Any]], Rows, Rows]:
        prefix = f"{name}."
        found = [(place[len(prefix) :], array) for place, array in self._columns.items() if place.startswith(prefix)]
        stored = [(label, array) for label, array in found if _storable(label)][:limit]
        kept = {label for label, _ in stored}
        return stored, NOTHING, self._sent([array for label, array in found if label not in kept])

    def features(self, known: Mapping[str, Feature]) -> tuple[list[tuple[str, Any]], Rows, Rows]:
        found: dict[str, Any] = {}
        for place, array in self._columns.items():
            if place.startswith("features."):
                found[place[9:]] = array
            elif place not in _ROLES and place.split(".")[0] not in _MEMBERS:
                found.setdefault(place, array)
        fresh = [label for label in found if label not in known]
        kept = set([label for label in fresh if _storable(label)][: max(0, FEATURES - len(known))])
        over = self._sent([found[label] for label in fresh if label not in kept])
        return [(label, array) for label, array in found.items() if label in known or label in kept], NOTHING, over

    def _sent(self, arrays: Sequence[Any]) -> Rows:
        sent = [np.flatnonzero(self.given(array)).astype(np.int64) for array in arrays]
        return np.concatenate(sent) if sent else NOTHING

    def type_of(self, column: Any) -> str | None:
        return values.type_of_column(column, textual=self._textual)

    def typed(self, column: Any, wanted: str) -> Typed:
        return values.typed_column(column, wanted, textual=self._textual)

    def labels(self, column: Any, task: str, *, logical: bool) -> Typed:
        return values.label_column(column, task, logical=logical, textual=self._textual)

    def identifiers(self, column: Any) -> Typed:
        if pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
            return Typed(pa.nulls(len(column), pa.string()), np.flatnonzero(self.given(column)).astype(np.int64))
        return values.text_column(column)

    def given(self, column: Any) -> NDArray[np.bool_]:
        if self._textual:
            return np.asarray(pc.fill_null(pc.not_equal(column, ""), False).to_numpy(zero_copy_only=False))
        return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))

    def answered(self, column: Any) -> NDArray[np.bool_]:
        return self.given(column) if self._textual else np.ones(len(column), np.bool_)

    def objects(self, name: str) -> tuple[pa.Array, Rows]:
        members, _, _ = self.members(name, TAGS)
        if not members:
            return pa.nulls(len(self), pa.string()), NOTHING
        columns = []
        for _, array in members:
            if self._textual:
                array = pc.if_else(pc.fill_null(pc.equal(array, ""), True), pa.scalar(None, pa.string()), array)
            columns.append(array.to_pylist())
        texts = []
        refused = []
        for row, given in enumerate(zip(*columns, strict=True)):
            sent = {label: value for (label, _), value in zip(members, given, strict=True) if value is not None}
            texts.append(attributes_text(sent) if sent else None)
            if sent and texts[-1] is None:
                refused.append(row)
        return pa.array(texts, pa.string()), np.array(refused, np.int64)


def _text(array: pa.Array) -> pa.Array:
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def _fixed(kind: pa.DataType, numbers: NDArray[Any]) -> pa.Array:
    """Return numbers of eight bytes as a column without copying them."""
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))])


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.nulls(0, column.type)


def _storable(label: str) -> bool:
    return 0 < len(label) <= 256 and "\x00" not in label


# --- texts and hashes -------------------------------------------------------------------------------------------------


def attributes_text(members: Mapping[str, Any]) -> str | None:
    """Return protected attributes as JSON text with sorted keys; none where a value is not a scalar."""
    if not all(value is None or isinstance(value, str | int | float | bool) for value in members.values()):
        return None
    return msgspec.json.encode(dict(members), order="sorted").decode()


def subject_text(subject: str, secret: bytes) -> str:
    """Return what is stored of a text that must not be stored: 32 hexadecimal digits of a keyed hash."""
    return blake2b(subject.encode(), key=secret[:64], digest_size=16).hexdigest()


def fresh_ids(count: int, now: int) -> list[str]:
    """Return new ids (UUIDv7 as 32 hexadecimal digits) of the millisecond that holds ``now``, microseconds."""
    drawn = np.frombuffer(secrets.token_bytes(16 * count), "<u8").reshape(count, 2)
    first = np.uint64((now // 1000) << 16 | 0x7000) | (drawn[:, 0] & np.uint64(0xFFF))
    second = (drawn[:, 1] & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    return [f"{high:016x}{low:016x}" for high, low in zip(first.tolist(), second.tolist(), strict=True)]


def fault_texts(count: int, faults: Sequence[Faults]) -> pa.Array:
    """Return per row the JSON text of label -> code, null where nothing was wrong."""
    if not faults:
        return pa.nulls(count, pa.string())
    patterns: list[dict[str, str]] = [{}]
    pattern = np.zeros(count, np.int64)
    for fault in faults:
        before, inverse = np.unique(pattern[fault.rows], return_inverse=True)
        grown = np.arange(len(patterns), len(patterns) + len(before))
        patterns += [patterns[number] | {fault.label: fault.code} for number in before.tolist()]
        pattern[fault.rows] = grown[inverse]
    texts = [msgspec.json.encode(found).decode() if found else None for found in patterns]
    return pa.array(texts, pa.string()).take(pa.array(pattern))


_CONTENT = hash_key(b"contents of predictions")


def content_hashes(batch: pa.RecordBatch) -> NDArray[np.uint32]:
    """Return a hash per row of what a prediction says: features, prediction and scores, after their types.

    The order of columns and the format a record came in do not matter; an absent value is a null one.
    """
    total = np.zeros(batch.num_rows, np.uint64)
    for name in batch.schema.names:
        if name in ("prediction", "score") or name.startswith(("features.", "scores.")):
            column = batch.column(name)
            if isinstance(column, pa.ChunkedArray):
                column = _one_chunk(column)
            mark = hash_ids(pa.array([name]), _CONTENT)[0]
            _mix(total, _cell_hashes(column), mark, column.is_valid().to_numpy(zero_copy_only=False))
    folded: NDArray[np.uint32] = (total ^ (total >> np.uint64(32))).astype(np.uint32)
    return folded


def _cell_hashes(column: pa.Array) -> NDArray[np.uint64]:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return hash_ids(column, _CONTENT)
    if pa.types.is_floating(kind):
        numbers = np.asarray(column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False))
        return (numbers + 0.0).view(np.uint64)
    if pa.types.is_boolean(kind):
        return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False), np.uint64)
    if pa.types.is_timestamp(kind):
        return np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)).view(np.uint64)
    spelt = [None if cell is None else repr(cell) for cell in column.to_pylist()]
    return hash_ids(pa.array(spelt, pa.string()), _CONTENT)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mix(total: Any, cells: Any, mark: Any, valid: Any) -> None:
    """Add each cell's hash, mixed with its column's; addition, so that the order of columns does not matter."""
    for row in range(len(total)):
        if valid[row]:
            word = cells[row] ^ mark
            word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            word = (word ^ (word >> np.uint64(31))) + mark
            word = (word ^ (word >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
            total[row] += word ^ (word >> np.uint64(33))
