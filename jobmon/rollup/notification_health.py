"""The stored form of how the deliveries of a queue's notifications went."""

from dataclasses import dataclass
from datetime import datetime
from types import NoneType

from jobmon.rollup.documents import require_type
from jobmon.store.mapping import Document


@dataclass(frozen=True, kw_only=True)
class ReceiverHealth:
    """The deliveries to a receiver so far: how many succeeded (`sent`), and how many failed.

    While deliveries fail, `failing_since` (UTC) and `reason` are set.
    """

    name: str
    sent: int = 0
    failures: int = 0
    failing_since: datetime | None = None
    reason: str = ""


def dump_receiver_health(health: ReceiverHealth) -> Document:
    return {
        "name": health.name,
        "sent": health.sent,
        "failures": health.failures,
        "failingSince": health.failing_since,
        "reason": health.reason,
    }


def load_receiver_health(document: Document) -> ReceiverHealth:
    """The stored health; raises MalformedError or KeyError for another document."""
    return ReceiverHealth(
        name=require_type(document["name"], str),
        sent=require_type(document["sent"], int),
        failures=require_type(document["failures"], int),
        failing_since=require_type(document["failingSince"], datetime, NoneType),
        reason=require_type(document["reason"], str),
    )
