"""The filters of a list of jobs on its page: their addresses, fields, chips and messages."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from flask import request
from werkzeug.datastructures import MultiDict

from jobmon.api.parameters import SentParameters
from jobmon.api.queries import LIST_PARAMETERS, NON_FILTERS, REPEATABLE
from jobmon.api.search import read_search
from jobmon.dashboard.formatting import status_word
from jobmon.dashboard.page_window import PRESETS
from jobmon.domain import JobCondition, JobStatus
from jobmon.page_addresses import query

Kind = Literal["text", "search", "number", "instant", "choice"]

LONGEST_FIRST = "-duration"
# The time window of another page is a range of createdAt on a list.
_NAMES_ON_LIST = {"from": "created_from", "to": "created_to"}
_PAGE_PARAMETERS = ("page", "cursor", "format")
_TYPE_HINT = "A type, or text* for the types that begin with it"
_SEARCH_HINT = "A value, or text* for texts that begin with it"


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of the form. Unless it `is_common`, it is below "More filters" until it is set.

    `choices`: the values that can be chosen, each with its text. `needs`: a job field; if it cannot
    be queried, the form field is shown only when it is set. `for_owners`: whether the list of the
    caller's own jobs also has the form field.
    """

    name: str
    label: str
    kind: Kind = "text"
    placeholder: str = "any"
    hint: str = ""
    choices: Mapping[str, str] | None = None
    needs: str = ""
    for_owners: bool = False
    is_common: bool = False


@dataclass(frozen=True, kw_only=True)
class ShownField:
    """A field with one of its values in the address, or empty, and a message if values are bad."""

    field: Field
    value: str
    error: str = ""

    @property
    def is_in_line(self) -> bool:
        """Whether it is in the line of filters: it is common, or has a value that no tab shows."""
        is_in_tab = has_tab(self.field.name, self.value)
        return self.field.is_common or bool(self.value and not is_in_tab)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A filter in the address. A click on it opens `address`: the list without this filter.

    `label` and `text` are the words for `name` and `value`. `other_parameters` are the parameters
    of the list without this filter.
    """

    name: str
    value: str
    label: str
    text: str
    is_instant: bool
    is_wrong: bool
    other_parameters: Mapping[str, Any]
    address: str


def _make_date_range(name: str, label: str, **options: Any) -> tuple[Field, Field]:
    common: dict[str, Any] = {"kind": "instant", "for_owners": True, **options}
    return (
        Field(name=f"{name}_from", label=f"{label} from", **common),
        Field(name=f"{name}_to", label=f"{label} before", **common),
    )


FIELDS = (
    Field(name="type", label="Type", hint=_TYPE_HINT, for_owners=True, is_common=True),
    Field(name="error_code", label="Error code", needs="lastError.code", is_common=True),
    Field(name="owner", label="Owner", needs="createdBy", is_common=True),
    Field(
        name="range",
        label="Created",
        kind="choice",
        choices={"": "any time"} | {preset.range: f"last {preset.name}" for preset in PRESETS},
        for_owners=True,
        is_common=True,
    ),
    Field(
        name="sort",
        label="Order",
        kind="choice",
        choices={
            "": "newest first",
            "createdAt": "oldest first",
            "nextRunAt": "soonest due first",
            "-nextRunAt": "latest due first",
            "-finishedAt": "last finished first",
            "finishedAt": "first finished first",
            LONGEST_FIRST: "longest run first",
        },
        for_owners=True,
        is_common=True,
    ),
    Field(name="job_id", label="Job id", kind="search", placeholder="starts with", for_owners=True),
    *_make_date_range("created", "Created"),
    Field(
        name="condition",
        label="Condition",
        kind="choice",
        choices={"": "any", "due": "due now", "scheduled": "scheduled", "expired": "lease expired"},
    ),
    Field(name="worker", label="Worker"),
    Field(
        name="error_group",
        label="Error group",
        placeholder="id of a group",
        needs="lastError.code",
    ),
    Field(name="min_attempts", label="Attempts at least", kind="number", for_owners=True),
    Field(name="priority", label="Priority", kind="number", needs="priority", for_owners=True),
    *_make_date_range("due", "Due", needs="nextRunAt"),
    *_make_date_range("finished", "Finished", needs="finishedAt"),
)
_OWN_ORDERS = {"": "newest first", "createdAt": "oldest first"}
LABELS = {"status": "Status"} | {field.name: field.label for field in FIELDS}
_CHOICES = {field.name: field.choices for field in FIELDS}
_PARAMETER = re.compile(rf"`?\b({'|'.join(LABELS)})\b(?:=(\w+))?`?")
_STATUS = re.compile(rf"\b({'|'.join(JobStatus)})\b")


def read_parameters() -> SentParameters:
    """The list's parameters in this request's address; `status` and `type` may be empty lists.

    Empty texts are left out. If a parameter for one text is repeated, its first text counts.
    """
    sent = MultiDict(
        (_NAMES_ON_LIST.get(name, name), text)
        for name in LIST_PARAMETERS
        for text in request.args.getlist(name)
        if text
    )
    lists = {name: sent.getlist(name) for name in REPEATABLE}
    repeated = [name for name, texts in sent.lists() if len(texts) > 1]
    return SentParameters(sent.to_dict() | lists | read_search(request.args), repeated)


def choose_fields(
    parameters: Mapping[str, Any],
    search_fields: Iterable[str],
    can_query: Callable[[str], bool],
    *,
    is_own: bool,
) -> tuple[Field, ...]:
    """The form fields of a list: those that suit its documents, and those that `parameters` set.

    `search_fields`: the searchable fields of the payload; the first is common. `can_query`: whether
    a job field can be queried. `is_own`: the list has only jobs of the caller.
    """
    payload_fields = [
        Field(
            name=name, label=name.removeprefix("payload."), hint=_SEARCH_HINT, is_common=not index
        )
        for index, name in enumerate(search_fields)
    ]
    fields = [
        replace(field, choices=_OWN_ORDERS) if is_own and field.name == "sort" else field
        for field in FIELDS
        if (field.for_owners or not is_own)
        and (not field.needs or can_query(field.needs) or parameters.get(field.name))
    ]
    return (*fields[:1], *payload_fields, *fields[1:])


class ListForm:
    """The filters in the address of a list, and the fields, chips and messages of its page.

    `path`: the path of the list. `errors`: the messages about each bad parameter, by its name.
    """

    def __init__(
        self,
        path: str,
        parameters: Mapping[str, Any],
        fields: tuple[Field, ...],
        errors: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.parameters = parameters
        self._fields = fields
        self._errors = {name: _write_sentence(name, texts) for name, texts in errors.items()}

    def address(self, **changes: Any) -> str:
        """The address of the first page with these changes; an empty value removes a parameter."""
        return self.path + query(**self._first_page_parameters | changes)

    @property
    def _first_page_parameters(self) -> dict[str, Any]:
        """The parameters without the number or cursor of a page, and without a file format."""
        return {
            name: value for name, value in self.parameters.items() if name not in _PAGE_PARAMETERS
        }

    @property
    def job_link_parameters(self) -> dict[str, Any]:
        """The list's filters and order, for the address of a job's page that links back here."""
        dropped = (*_PAGE_PARAMETERS, "per_page")
        return {name: value for name, value in self.parameters.items() if name not in dropped}

    @property
    def fields_in_line(self) -> list[ShownField]:
        """The fields that are always visible: see `ShownField.is_in_line`."""
        return [shown for shown in self._show_fields() if shown.is_in_line]

    @property
    def folded_fields(self) -> list[ShownField]:
        """The fields below "More filters"."""
        return [shown for shown in self._show_fields() if not shown.is_in_line]

    def _show_fields(self) -> Iterator[ShownField]:
        """A field for each value in the address, and an empty field for each filter without one.

        If there are types, an empty field for another type, too.
        """
        for field in self._fields:
            values = _list_values(self.parameters.get(field.name))
            shown = ShownField(field=field, value="", error=self._errors.get(field.name, ""))
            if field.name != "type":
                yield from (replace(shown, value=value) for value in values or [""])
                continue
            yield replace(shown, value=values[0] if values else "")
            also_type = replace(field, label="Also type", is_common=False)
            yield from (ShownField(field=also_type, value=value) for value in values[1:])
            if values:
                yield ShownField(field=also_type, value="")

    @property
    def status_error(self) -> str:
        """The message about bad statuses; empty if all are good."""
        return self._errors.get("status", "")

    @property
    def other_errors(self) -> list[str]:
        """The messages about bad parameters that have neither a field nor tabs."""
        return [
            text if name == "cursor" else f"{LABELS.get(name, name)}: {text}"
            for name, text in self._errors.items()
            if name in self._bad_names_without_field
        ]

    @property
    def address_without_other_errors(self) -> str:
        """The address of the first page without the parameters that `other_errors` are about."""
        return self.address(**dict.fromkeys(("per_page", *self._bad_names_without_field), ""))

    @property
    def _bad_names_without_field(self) -> set[str]:
        return self._errors.keys() - {"status", *(field.name for field in self._fields)}

    @property
    def is_filtered(self) -> bool:
        """Whether a filter limits the list."""
        return any(value for name, value in self.parameters.items() if name not in NON_FILTERS)

    @property
    def is_by_status_and_type(self) -> bool:
        """Whether all filters are by status, type or condition: then its tabs can have counts."""
        return {chip.name for chip in self.all_chips} <= {"status", "type", "condition"}

    @property
    def shown_chips(self) -> list[Chip]:
        """A chip for each filter, except for a single status or condition that a tab shows."""
        chips = self.all_chips
        has_several = sum(chip.name in ("status", "condition") for chip in chips) > 1
        return [chip for chip in chips if has_several or not has_tab(chip.name, chip.value)]

    @property
    def all_chips(self) -> list[Chip]:
        """A chip for each value of each filter."""
        return [
            self._make_chip(name, value)
            for name, values in self.parameters.items()
            if name not in NON_FILTERS
            for value in _list_values(values)
        ]

    def _make_chip(self, name: str, value: str) -> Chip:
        values = [text for text in _list_values(self.parameters[name]) if text != value]
        without_value: Any = values if values or name in REPEATABLE else ""
        return Chip(
            name=name,
            value=value,
            label=LABELS.get(name, name.removeprefix("payload.")),
            text=_format_value(name, value),
            is_instant=name.endswith(("_from", "_to")),
            is_wrong=name in self._errors,
            other_parameters=self._first_page_parameters | {name: without_value},
            address=self.address(**{name: values}),
        )


def has_tab(name: str, value: str) -> bool:
    """Whether the list has a tab for this value of a filter."""
    return name == "status" or (name == "condition" and value == JobCondition.SCHEDULED)


def _list_values(values: Any) -> list[str]:
    return values if isinstance(values, list) else [values] if values else []


def _format_value(name: str, value: str) -> str:
    """The word for a filter's value on the page."""
    if name == "status":
        return status_word(value)
    return (_CHOICES.get(name) or {}).get(value, value)


def _write_sentence(name: str, messages: Any) -> str:
    """The messages about a parameter as one text, with the page's labels for names and statuses."""
    if name == "cursor":
        return "This page link is no longer valid."
    sentence = _PARAMETER.sub(_write_parameter, " ".join(messages))
    return _STATUS.sub(lambda match: status_word(match[0]), sentence)


def _write_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    return f'"{LABELS[name]}{": " + _format_value(name, value) if value else ""}"'
