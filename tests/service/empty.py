"""An empty database at the newest schema, copied instead of migrated each time."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from service.database import Database
from service.schema import migrate


@cache
def _template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="plumbline-empty-")) / "plumbline.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


def copy_empty(path: Path) -> None:
    """Put an empty database at a path, where there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_template(), path)
