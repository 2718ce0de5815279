"""Large batches of the buffer lie in files.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Name the file of a batch, and where in it the batch begins."""
    with op.batch_alter_table("ingest_batch", schema=None) as batch_op:
        batch_op.add_column(sa.Column("file", sa.String(length=64), nullable=True))
        batch_op.add_column(
            sa.Column(
                "start",
                sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
                nullable=False,
                server_default="0",
            )
        )


def downgrade() -> None:
    """Forget the files."""
    with op.batch_alter_table("ingest_batch", schema=None) as batch_op:
        batch_op.drop_column("start")
        batch_op.drop_column("file")
