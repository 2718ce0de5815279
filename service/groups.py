"""Groups of people beside rows: the columns by which outcomes are counted, made when profiles are, and kept nowhere."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy.orm import Session

from monitors.groups import group_names
from monitors.layout import Layout, OutcomeLayout
from service.lake import Lake
from service.lake.columns import numbers_of
from service.lake.reader import PROTECTED, Attributes, attribute_of
from service.tables import VersionRow


def protected_names(layout: Layout) -> tuple[str, ...]:
    """Return the attributes that have to be read from where they are kept apart."""
    outcomes = layout.outcomes
    return () if outcomes is None else tuple(name for name in outcomes.attributes if name not in outcomes.features)


def feature_names(layout: Layout) -> tuple[str, ...]:
    """Return the columns of the features that are attributes too."""
    return () if layout.outcomes is None else tuple(f"features.{name}" for name in layout.outcomes.features)


def grouped(batches: Iterable[pa.RecordBatch], outcomes: OutcomeLayout | None) -> Iterator[pa.RecordBatch]:
    """Yield rows with a column ``group.<attribute>`` for each attribute that they carry, the protected columns gone."""
    for batch in batches:
        names = set(batch.schema.names)
        if outcomes is not None:
            for attribute in outcomes.attributes:
                column = f"features.{attribute}" if attribute in outcomes.features else f"{PROTECTED}{attribute}"
                if column in names:
                    found = group_names(batch.column(column), outcomes.cuts.get(attribute, ()))
                    batch = batch.append_column(f"group.{attribute}", found)
        apart = [name for name in batch.schema.names if name.startswith(PROTECTED)]
        yield batch.drop_columns(apart) if apart else batch


def beside(table: pa.Table, protected: pa.Table | None, names: Sequence[str]) -> pa.Table:
    """Return a baseline's rows with protected columns from the file that is kept apart, row by row."""
    if protected is None or protected.num_rows != table.num_rows:
        return table
    documents = protected["attributes"].combine_chunks()
    for name in names:
        table = table.append_column(f"{PROTECTED}{name}", attribute_of(documents, name)[0])
    return table


def groups_of(
    session: Session, lake: Lake, version: VersionRow, layout: Layout, table: pa.Table, attribute: str
) -> pa.Array | None:
    """Return the group of each of some stored rows by an attribute or crossing, null where it is not known.

    None where outcomes are not counted by it. The rows need ``prediction_id``, ``id_hash`` and ``timestamp``.
    """
    outcomes = layout.outcomes
    if outcomes is None or attribute not in outcomes.groups or not table.num_rows:
        return None
    buckets = numbers_of(table["timestamp"], np.int64) // 3_600_000_000
    span = int(buckets.min()), int(buckets.max())
    known = Attributes.read(session, lake, version.model_id, version.id, *span, protected_names(layout))
    found = known.of(numbers_of(table["id_hash"], np.uint64), table["prediction_id"].combine_chunks())
    features = [name for name in feature_names(layout) if name in table.column_names]
    columns = {name: table[name].combine_chunks() for name in features}
    return _group(columns | {f"{PROTECTED}{name}": values for name, values in found.items()}, outcomes, attribute)


def groups_in(rows: pa.Table, layout: Layout, attribute: str) -> pa.Array | None:
    """Return the group of each of some rows that carry their protected columns, null where it is not known.

    None where outcomes are not counted by it.
    """
    outcomes = layout.outcomes
    if outcomes is None or attribute not in outcomes.groups or not rows.num_rows:
        return None
    named = [name for name in rows.column_names if name.startswith(PROTECTED) or name in feature_names(layout)]
    return _group({name: rows[name].combine_chunks() for name in named}, outcomes, attribute)


def _group(columns: Mapping[str, pa.Array], outcomes: OutcomeLayout, attribute: str) -> pa.Array | None:
    """Return the group of each row by an attribute or crossing; None where a part of it is not among the columns."""
    batch = next(iter(grouped([pa.record_batch(dict(columns))], outcomes)))
    parts = attribute.split("*")
    if any(f"group.{part}" not in batch.schema.names for part in parts):
        return None
    texts = [batch.column(f"group.{part}").cast(pa.string()) for part in parts]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "*")
