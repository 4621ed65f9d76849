"""The text of the search box: catches a part that is lost, a value that is cut at a colon or a
space, and a key that means another field."""

import pytest

from jobmon.api.search_text import (
    MAX_PARTS,
    MAX_TEXT_LENGTH,
    explain_refused,
    format_filters,
    list_keys,
    parse_search,
    shown_key,
    to_parameters,
)

FIELDS = ("payload.orderId", "payload.customer.email", "payload.user.id", "payload.team.id")
EMAIL, ORDER_ID = "payload.customer.email", "payload.orderId"


@pytest.mark.parametrize(
    ("text", "filters", "words"),
    [
        ("", {}, []),
        ("  a56e2b9b ", {}, ["a56e2b9b"]),
        ("status:dead type:mail", {"status": ["dlq"], "type": ["mail"]}, []),
        ("STATUS:Running", {"status": ["leased"]}, []),
        ("status:dlq status:odd", {"status": ["dlq", "odd"]}, []),
        ("status:scheduled is:due", {"condition": ["scheduled", "due"]}, []),
        ("owner:ada worker:w-1", {"owner": ["ada"], "worker": ["w-1"]}, []),
        ("code:E_1 error:E_2", {"error_code": ["E_1", "E_2"]}, []),
        ("id:a56e", {"job_id": ["a56e"]}, []),
        ("group:3f0c", {"error_group": ["3f0c"]}, []),
        ("attempts:3 Priority:-5", {"min_attempts": ["3"], "priority": ["-5"]}, []),
        # Fields of the payload: the whole path, or its end.
        ("payload.orderId:8425", {ORDER_ID: ["8425"]}, []),
        ("orderid:8425 orderId=84*", {ORDER_ID: ["8425", "84*"]}, []),
        ("user.id:4 team.id:5", {"payload.user.id": ["4"], "payload.team.id": ["5"]}, []),
        # Colons in words and values.
        ("order:8425:x", {}, ["order:8425:x"]),
        ("type:mail:send", {"type": ["mail:send"]}, []),
        ("https://a.example/?x=1", {}, ["https://a.example/?x=1"]),
        (":x x: =", {}, [":x", "x:", "="]),
        # Spaces and quotes.
        ("type: mail dead", {"type": ["mail"]}, ["dead"]),
        ('type:"send mail" "two words" 5"disk', {"type": ["send mail"]}, ["two words", '5"disk']),
        ("type:\u201csend mail\u201d", {"type": ["send mail"]}, []),
        ('type:"send ma', {"type": ["send ma"]}, []),
        ('owner:"" foo', {"owner": [""]}, ["foo"]),
        ('owner: "" foo', {"owner": [""]}, ["foo"]),
        ('type:"null" type:null type:"odd*"', {"type": ['"null"', "null", '"odd*"']}, []),
        ('email:"Ada L"', {EMAIL: ['"Ada L"']}, []),
        ('email:"Ada L"*', {EMAIL: ["Ada L*"]}, []),
        ("email:a\u00a0b", {EMAIL: ["a"]}, ["b"]),
        # Other scripts, and texts that have a meaning in MongoDB or JavaScript.
        ("type:\u540d\u524d \U0001f984:x", {"type": ["\u540d\u524d"]}, ["\U0001f984:x"]),
        ("owner:$ne {$gt:''}", {"owner": ["$ne"]}, ["{$gt:''}"]),
        ("__proto__:x", {}, ["__proto__:x"]),
    ],
)  # fmt: skip
def test_parse_finds_filters_and_words(
    text: str, filters: dict[str, list[str]], words: list[str]
) -> None:
    search = parse_search(text, FIELDS)
    assert (search.filters, search.words) == (filters, words)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x" * (MAX_TEXT_LENGTH + 1), "The text is too long: write at most 1,000 characters."),
        ("a " * (MAX_PARTS + 1), "Write at most 20 words and filters."),
        ("type:", "Write a value after `type:`."),
        ('owner:"" foo', "Write a value after `owner:`."),
        ("owner:a owner:b", "Write `owner:` only once."),
        ("id:4", ""),
        ("payload.id:4", "JOBMON_SEARCH_FIELDS has payload.orderId,"),
        ("payload.password:x", "`payload.password` cannot be searched"),
        ("x:1", ""),
    ],
)
def test_parse_explains_which_part_cannot_be_searched(text: str, problem: str) -> None:
    problems = parse_search(text, FIELDS).problems
    assert (problem in problems[0]) if problem else not problems


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("attempts:x", "attempts:x"),
        ("Priority: high", "priority:high"),
        ('priority:"very high"', "priority:very high"),
        ("type:mail type:*", "type:"),  # the message describes which of the values it means
        (" ".join(f"orderId:{number}" for number in range(11)), "orderId:"),
    ],
)
def test_a_refused_filter_is_named_once_and_whole(text: str, refused: str) -> None:
    """Catches an accepted value that the problem names, and a value that is cut at a space."""
    (problem,) = explain_refused(parse_search(text, FIELDS), FIELDS).problems
    assert problem.startswith(f"`{refused}` cannot be searched: ")


def test_key_of_several_fields_is_ambiguous_unless_one_matches_exactly() -> None:
    """Catches a search in the wrong field if two paths end with the same name."""
    ambiguous = parse_search("email:x", ("payload.from.email", "payload.to.email"))
    assert ambiguous.filters == {}
    assert ambiguous.problems == (
        "`email:` is ambiguous: write payload.from.email or payload.to.email.",
    )
    exact = parse_search("ID:1 orderID:2", ("payload.orderId", "payload.orderID"))
    assert exact.filters == {"job_id": ["1"], "payload.orderID": ["2"]}


def test_each_parameter_is_listed_under_the_key_that_is_shown_for_it() -> None:
    """Catches a suggestion that searches another field: `id:` is the job's id, not `user.id`."""
    assert [shown_key(field, FIELDS) for field in FIELDS] == [
        "orderId",
        "email",
        "user.id",
        "team.id",
    ]
    assert shown_key("payload.type", ("payload.type",)) == "payload.type"
    assert list_keys(FIELDS[:1], is_operator=True) == [
        *("id", "type", "status", "owner", "worker", "code", "group", "is"),
        *("attempts", "priority"),
        "orderId",
    ]
    assert list_keys(FIELDS[:1], is_operator=False) == [
        *("id", "type", "status", "attempts", "priority", "orderId")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "status:dead type:mail",
        'type:"send mail"',
        'type:"null"',
        'type:"x*"',
        'email:"Ada L"',
        'email:"Ada L"*',
        "orderId:84* owner:ada",
        "user.id:4",
        "is:due",
    ],
)
def test_formatted_filters_equal_the_parsed_text(text: str) -> None:
    assert format_filters(parse_search(text, FIELDS).filters, FIELDS) == text


def test_value_that_cannot_be_quoted_is_not_formatted() -> None:
    assert format_filters({"type": ['a "b" c']}, FIELDS) is None


def test_unknown_keys_are_names_before_a_colon() -> None:
    assert parse_search("color:red 12:30 a-b:c :x", FIELDS).unknown_keys == ["color", "a-b"]


def test_parameters_have_one_value_where_only_one_is_possible() -> None:
    filters = parse_search("type:a type:b owner:c orderId:1", FIELDS).filters
    assert to_parameters(filters) == {"type": ["a", "b"], "owner": "c", ORDER_ID: ["1"]}
