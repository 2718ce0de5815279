"""Named figures that are posted for a model."""

import sqlalchemy as sa
from alembic import op

import service.database

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('posted_figure',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('model_id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('version_id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('metric', sa.String(length=64), nullable=False),
    sa.Column('attribute', sa.String(length=256), nullable=False),
    sa.Column('group', sa.String(length=256), nullable=False),
    sa.Column('starts_at', service.database.UtcDateTime(), nullable=False),
    sa.Column('ends_at', service.database.UtcDateTime(), nullable=False),
    sa.Column('bucket', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('value', sa.Float(precision=53), nullable=True),
    sa.Column('n', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=True),
    sa.Column('low', sa.Float(precision=53), nullable=True),
    sa.Column('high', sa.Float(precision=53), nullable=True),
    sa.Column('unit', sa.String(length=32), nullable=False),
    sa.Column('revision', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('current', sa.Boolean(), nullable=False),
    sa.Column('received_at', service.database.UtcDateTime(), nullable=False),
    sa.ForeignKeyConstraint(['model_id'], ['model.id'], name=op.f('fk_posted_figure_model_id_model'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['version_id'], ['version.id'], name=op.f('fk_posted_figure_version_id_version'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_posted_figure')),
    sa.UniqueConstraint('version_id', 'metric', 'attribute', 'group', 'starts_at', 'ends_at', 'revision', name=op.f('uq_posted_figure_revision'))
    )
    op.create_index('ix_posted_figure_time', 'posted_figure', ['version_id', 'current', 'bucket'], unique=False)
    op.create_index(op.f('ix_posted_figure_model_id'), 'posted_figure', ['model_id'], unique=False)


def downgrade() -> None:
    op.drop_index(op.f('ix_posted_figure_model_id'), table_name='posted_figure')
    op.drop_index('ix_posted_figure_time', table_name='posted_figure')
    op.drop_table('posted_figure')
