"""The lake: Parquet segments, the index of prediction ids beside them, and the sealer that fills both."""

from service.lake.files import Lake
from service.lake.index import Index
from service.lake.sealer import Sealer

__all__ = ["Index", "Lake", "Sealer"]
