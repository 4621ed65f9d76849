"""Reads the forms on the pages that request an action."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from werkzeug.datastructures import MultiDict

from jobmon.actions.request import MAX_PRIORITY
from jobmon.api.action_queries import ActionBody, ActionOrder
from jobmon.api.queries import REPEATABLE
from jobmon.api.search import is_search
from jobmon.web.errors import invalid

ALL = "all"
NO_SELECTION = "Select a job first."
_BODY = ActionBody()


@dataclass(frozen=True, kw_only=True)
class ActionForm:
    """The fields of a form; empty fields were not sent.

    `filter` is a query string, `?` for a list without filters. `key` is the idempotency key, `then`
    the address of the page that the form came from.
    """

    action: str
    ids: tuple[str, ...] = ()
    filter: str = ""
    types: tuple[str, ...] = ()
    expected: str = ""
    reason: str = ""
    run_at: str = ""
    priority: str = ""
    reset_attempts: bool = False
    dry_run: bool = False
    key: str = ""
    then: str = ""

    @classmethod
    def read(cls, values: MultiDict[str, str]) -> "ActionForm":
        """The form that a request sends; its `scope` is `all` for all jobs of a list.

        Another `scope` is for the selected jobs. Without a `scope`, `id` and `filter` are read.
        """
        is_all = values.get("scope") == ALL
        texts = {
            name: values.get(name, "")
            for name in ("action", "expected", "reason", "run_at", "priority", "key", "then")
        }
        return cls(
            **texts,
            ids=() if is_all else tuple(dict.fromkeys(values.getlist("id"))),
            filter=values.get("filter", "") if values.get("scope", ALL) == ALL else "",
            types=tuple(values.getlist("type")),
            reset_attempts=bool(values.get("reset_attempts")),
            dry_run=bool(values.get("dry_run")),
        )

    def make_order(self) -> ActionOrder:
        """The order that the form describes; raises ApiError 422 if a field is missing or bad."""
        if not (self.ids or self.types or self.filter):
            raise invalid("ids", NO_SELECTION)
        body: dict[str, Any] = {"action": self.action, "reason": self.reason.replace("\r\n", "\n")}
        if self.ids:
            body["ids"] = list(self.ids)
        elif self.types:
            body["types"] = list(self.types)
        else:
            body["filter"] = _read_filter(self.filter)
        for name, text in (("expected", self.expected), ("priority", self.priority)):
            if text:
                body[name] = _read_number(name, text)
        if self.run_at:
            body["runAt"] = self.run_at
        body |= {"isReset": self.reset_attempts, "isDryRun": self.dry_run}
        order: ActionOrder = _BODY.read_fields(body)
        return order

    @property
    def target_fields(self) -> list[tuple[str, str]]:
        """The names and values of the fields that choose the jobs or types, for hidden inputs."""
        pairs = [("id", job_id) for job_id in self.ids] + [("type", name) for name in self.types]
        return [*pairs, *([("filter", self.filter)] if self.filter else [])]


def _read_number(name: str, text: str) -> int:
    digits = text.strip().removeprefix("-")
    if not digits.isascii() or not digits.isdigit():
        raise invalid(name, "Not a whole number.")
    if len(digits) > len(str(MAX_PRIORITY)):
        raise invalid(name, "Too many digits.")
    return int(text)


def _read_filter(text: str) -> Mapping[str, Any]:
    """The filters in a query string: a list for one that can be repeated or is, else a text."""
    try:
        parameters = parse_qs(text.removeprefix("?"), max_num_fields=200)
    except ValueError:
        raise invalid("filter", "Too many filters.") from None
    return {
        name: values if name in REPEATABLE or is_search(name) or len(values) > 1 else values[0]
        for name, values in parameters.items()
    }
