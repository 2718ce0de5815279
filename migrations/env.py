"""Run the steps on the connection that was handed in (`service.schema`), in one transaction."""

from alembic import context

from service.tables import Base


def run(connection: object) -> None:
    """Configure alembic for our tables and run what is missing."""
    context.configure(
        connection=connection,  # type: ignore[arg-type]
        target_metadata=Base.metadata,
        render_as_batch=True,
        transactional_ddl=True,
        compare_type=True,
        user_module_prefix="service.database.",
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
