"""The webhooks page from the database, and what can be done from it."""

from sqlalchemy import func, select

from dashboards.page import Empty
from dashboards.webhooks import WebhookLine, WebhooksPage
from service import webhooks
from service.access import Principal
from service.api.depends import audit
from service.api.webhooks import sees, webhook_named
from service.assembly import Assembly
from service.pages import commands
from service.pages.alerts import delivery_line
from service.pages.visit import Visit, may_operate
from service.problems import NotFound
from service.tables import DeliveryRow, ModelRow, WebhookRow

SHOWN = 50


def build(visit: Visit) -> WebhooksPage:
    """Return the webhooks that the reader may know of, and their dead letters."""
    rows = [
        row for row in visit.session.scalars(select(WebhookRow).order_by(WebhookRow.name)) if sees(visit.principal, row)
    ]
    by_id = {row.id: row for row in rows}
    counts: dict[tuple[int, str], int] = {}
    last = dict[int, object]()
    for webhook_id, state, count, newest in visit.session.execute(
        select(DeliveryRow.webhook_id, DeliveryRow.state, func.count(), func.max(DeliveryRow.delivered_at))
        .where(DeliveryRow.webhook_id.in_(by_id))
        .group_by(DeliveryRow.webhook_id, DeliveryRow.state)
    ):
        counts[webhook_id, state] = int(count)
        if state == "delivered":
            last[webhook_id] = newest
    dead = visit.session.scalars(
        select(DeliveryRow)
        .where(DeliveryRow.webhook_id.in_(by_id), DeliveryRow.state == "failed")
        .order_by(DeliveryRow.id.desc())
        .limit(SHOWN)
    ).all()
    return WebhooksPage(
        frame=visit.frame(),
        title="Webhooks",
        webhooks=tuple(
            WebhookLine(
                name=row.name,
                kind=row.kind,
                url=webhooks.masked(row.url),
                events=tuple(row.events),
                models=None if row.models is None else tuple(row.models),
                disabled_reason=None if row.disabled_at is None else row.disabled_reason or "It was switched off.",
                pending=counts.get((row.id, "pending"), 0),
                delivered=counts.get((row.id, "delivered"), 0),
                failed=counts.get((row.id, "failed"), 0),
                last_delivered=last.get(row.id),  # type: ignore[arg-type]  # a moment, by the column's type
            )
            for row in rows
        ),
        dead=tuple(delivery_line(one, by_id[one.webhook_id]) for one in dead),
        may_operate=may_operate(visit.principal),
        empty=None if rows else _empty(visit),
    )


def _empty(visit: Visit) -> Empty:
    base = visit.parts.settings.public_url.rstrip("/")
    body = {"name": "pager", "url": "https://hooks.example.com/plumbline", "events": ["alert.opened"]}
    return Empty(
        title="Nobody is told yet",
        text="A webhook calls a receiver of yours, a workflow, a pager or a chat when something happens.",
        commands=(commands.post("Be called when an episode opens", f"{base}/v1/webhooks", body),),
    )


def resend(parts: Assembly, principal: Principal, name: str, uid: str) -> None:
    """Owe a call of a webhook once more, under the same id."""
    with parts.database.writing() as session:
        webhook = webhook_named(session, principal, name)
        row = session.scalar(
            select(DeliveryRow).where(DeliveryRow.webhook_id == webhook.id, DeliveryRow.uid == uid[:64])
        )
        if row is None:
            raise NotFound(f"webhook {name!r} has no delivery {uid[:64]!r}")
        model = None if row.model_id is None else session.get(ModelRow, row.model_id)
        row.state, row.attempts, row.next_at, row.delivered_at = "pending", 0, parts.clock.now(), None
        audit(session, parts, principal, "delivery.resend", f"deliveries/{row.uid}", model, webhook=name)
