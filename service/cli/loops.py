"""Compiles the loops over numbers into numba's cache, so that no start need do it: `python -m service.cli.loops`."""

import tempfile
from pathlib import Path

from monitors.kernel import compile_loops
from service.assembly import assemble
from service.settings import Settings


def main() -> None:
    """Compile the loops of profiles and of ingest, or find them compiled."""
    compile_loops()
    with tempfile.TemporaryDirectory(prefix="plumbline-") as folder:
        parts = assemble(Settings(data_dir=Path(folder)))
        parts.writer.warm_up()
        parts.database.close()


if __name__ == "__main__":
    main()
