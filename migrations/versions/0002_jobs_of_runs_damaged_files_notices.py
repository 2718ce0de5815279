"""Runs know the job that asked for them, segments whether they are damaged; notices for whoever keeps the service."""

import sqlalchemy as sa
from alembic import op

import service.database


revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "notice",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("model_id", KEY, nullable=True),
        sa.Column("created_at", service.database.UtcDateTime(), nullable=False),
        sa.Column("told_at", service.database.UtcDateTime(), nullable=True),
        sa.Column("resolved_at", service.database.UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
        sa.UniqueConstraint("kind", "subject", name=op.f("uq_notice_kind_subject")),
        sa.UniqueConstraint("uid", name=op.f("uq_notice_uid")),
    )
    op.create_index(op.f("ix_notice_model_id"), "notice", ["model_id"])
    op.add_column("run", sa.Column("job_id", KEY, nullable=True))
    op.create_index(op.f("ix_run_job_id"), "run", ["job_id"])
    op.add_column("segment", sa.Column("damaged_at", service.database.UtcDateTime(), nullable=True))


def downgrade() -> None:
    op.drop_column("segment", "damaged_at")
    op.drop_index(op.f("ix_run_job_id"), "run")
    op.drop_column("run", "job_id")
    op.drop_index(op.f("ix_notice_model_id"), "notice")
    op.drop_table("notice")
