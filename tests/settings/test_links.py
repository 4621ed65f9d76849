"""Links by template: catches an address whose host or path a job's values can change, and a
template that is no safe address."""

from pathlib import Path
from typing import Any

import pytest
from marshmallow import ValidationError

from jobmon.settings import Settings, SettingsError, load_queues
from jobmon.settings.links import LinkTemplate, NoLinkError, make_links, parse_links

URI = "mongodb://db/shop"
LOGS = "https://logs.example/?q={jobId}"


def fill_link(template: str, **values: Any) -> str:
    """The address with these values: `payload_a` is the value of the field `payload.a`."""
    (link,) = make_links({"Link": template})
    return link.fill(lambda name: values.get(name.replace(".", "_")))


def test_links_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", URI)
    monkeypatch.setenv(
        "JOBMON_LINKS",
        f"Logs={LOGS}, My trace = https://t.example/{{payload.traceId}}?a=(b:1,c:2),",
    )
    monkeypatch.setenv("JOBMON_ENVIRONMENT", "PROD")
    settings = Settings.from_env(require_keys=False)
    assert settings.environment == "PROD"
    assert [(link.name, link.template, link.fields) for link in settings.links] == [
        ("Logs", LOGS, ["jobId"]),
        # A comma without another link after it belongs to the address.
        ("My trace", "https://t.example/{payload.traceId}?a=(b:1,c:2),", ["payload.traceId"]),
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("javascript:alert({jobId})", "begins with https"),
        ("JAVASCRIPT://x/%0aalert(1)", "begins with https"),
        ("data:text/html,x", "begins with https"),
        ("ftp://x/", "begins with https"),
        ("//evil.example/{jobId}", "begins with https"),
        ("/relative/{jobId}", "begins with https"),
        ("https:evil.example", "begins with https"),
        ("https:/evil.example", "begins with https"),
        ("https:///evil.example", "with a host"),
        ("https://", "with a host"),
        ("https://:80/", "with a host"),
        ("https://logs.example:port/", "with a host"),
        ("https://logs.example:999999/", "with a host"),
        ("https://[::1/", "Not an address"),
        ("https://logs.example@evil.example/", "with a user"),
        ("https://user:password@logs.example/", "with a user"),
        ("https://{payload.host}/", "not in the host"),
        ("https://logs.example{jobId}/", "not in the host"),
        ("https://logs.example:{payload.port}/", "not in the host"),
        ("https://{type}@logs.example/", "with a user"),
        ("{payload.url}", "begins with https"),
        ("{type}://logs.example/", "begins with https"),
        ("https://logs.example\\@evil.example/", "percent-encode"),
        ("https://logs.example/a b", "percent-encode"),
        ("https://logs.example/\n", "percent-encode"),
        ('https://logs.example/"onclick="alert(1)', "percent-encode"),
        ("https://lögs.example/", "percent-encode"),
        ("https://logs.example/{jobId", "percent-encode"),
        ("https://logs.example/{{jobId}}", "percent-encode"),
        ("https://logs.example/a/../{jobId}", "no . or .. parts"),
        ("https://logs.example/%2e%2E/{jobId}", "no . or .. parts"),
        ("https://logs.example/{password}", "Unknown field {password}. Known: jobId"),
        ("https://logs.example/{payload}", "Unknown field {payload}"),
        ("https://logs.example/{payload.}", "Unknown field {payload.}"),
        ("https://logs.example/{payload.a..b}", "Unknown field"),
        ("https://logs.example/{}", "Unknown field {}"),
        ("https://logs.example/{ jobId }", "Unknown field { jobId }"),
        ("https://logs.example/" + "a" * 2_000, "Longer than 2,000"),
    ],
)
def test_a_template_that_is_not_an_allowed_address_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValidationError, match="Link: ") as caught:
        make_links({"Link": template})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://logs.example/", "Not of the form"),
        (f"A={LOGS},A={LOGS}", "Given more than once: A"),
        (f"={LOGS}", "The name of a link"),
        (f"{'a' * 41}={LOGS}", "The name of a link"),
        (f"A={LOGS},B=javascript:alert(1)", "B: Not an address"),
        (",".join(f"A{index}={LOGS}" for index in range(11)), "More than 10 links"),
    ],
)
def test_a_list_of_links_with_a_mistake_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse_links(text)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("a/b?c#d&e=f", "a%2Fb%3Fc%23d%26e%3Df"),
        ("//evil.example", "%2F%2Fevil.example"),
        ("\"'><script>", "%22%27%3E%3Cscript%3E"),
        ("{jobId}%2f a+b", "%7BjobId%7D%252f%20a%2Bb"),
        ("é漢", "%C3%A9%E6%BC%A2"),
        ("@evil.example:80\\", "%40evil.example%3A80%5C"),
        ("x" * 500, "x" * 500),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
    ],
)
def test_a_value_stays_one_part_of_the_address(value: Any, encoded: str) -> None:
    assert fill_link("https://logs.example/?q={jobId}&z=1", jobId=value) == (
        f"https://logs.example/?q={encoded}&z=1"
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "has no value"),
        ("", "is empty"),
        ({"a": 1}, "is an object, not a single value"),
        ([1], "is an array, not a single value"),
        ("x" * 501, "has more than 500 characters"),
        ("a\nb", "has unprintable characters"),
        ("a\r\nSet-Cookie: b", "has unprintable characters"),
        ("\x00", "has unprintable characters"),
        ("a\u202eb", "has unprintable characters"),
        ("\ud800", "has unprintable characters"),
        ("[redacted]", "redaction hides payload.a"),
        ("https://user:[redacted]@host", "redaction hides payload.a"),
    ],
)
def test_a_value_that_cannot_be_in_an_address_gives_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(NoLinkError, match=reason.replace("[", r"\[")):
        fill_link("https://logs.example/?q={payload.a}", payload_a=value)


@pytest.mark.parametrize("value", [".", "..", "../admin", "a/../../b", "..\\a", "%2e%2e"])
def test_a_value_cannot_lead_to_another_path(value: str) -> None:
    template = "https://logs.example/jobs/{jobId}/delete"
    if value == "%2e%2e":  # percent-encoded once more, so it is a plain name
        assert fill_link(template, jobId=value) == "https://logs.example/jobs/%252e%252e/delete"
        return
    with pytest.raises(NoLinkError, match="another path"):
        fill_link(template, jobId=value)
    assert "?q=" in fill_link("https://logs.example/?q={jobId}", jobId=value)  # harmless in a query


def test_a_field_that_redaction_hides_is_refused() -> None:
    (link,) = make_links({"Link": "https://x.example/{payload.user.apiToken}"})
    message = "JOBMON_LINKS: Link: redaction hides the values of payload.user.apiToken"
    with pytest.raises(SettingsError, match=message):
        Settings(mongo_uri=URI, links=(link,))
    assert Settings(mongo_uri=URI, links=(link,), redact_keys=("pan",)).links == (link,)


def test_each_queue_has_its_own_links_and_environment(tmp_path: Path) -> None:
    (tmp_path / "queues.toml").write_text(
        '[a]\nenvironment = "EU"\nlinks = {Runs = "https://runs.example/{queue}/{id}"}\n'
        '[b]\ncollection = "b"\n[c]\ncollection = "c"\nlinks = {}\n'
    )
    default = LinkTemplate(name="Logs", template=LOGS)
    settings = Settings(
        mongo_uri=URI, queues=str(tmp_path / "queues.toml"), links=(default,), environment="PROD"
    )
    by_queue = {queue.queue: (queue.environment, queue.links) for queue in load_queues(settings)}
    runs = LinkTemplate(name="Runs", template="https://runs.example/{queue}/{id}")
    assert by_queue == {"a": ("EU", (runs,)), "b": ("PROD", (default,)), "c": ("PROD", ())}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('links = {A = "javascript:x"}', "line 2.*A: Not an address"),
        ('links = {A = "https://x.example/{payload.token}"}', "line 2.*redaction hides"),
        ("links = {A = 1}", "line 2.*links"),
        ('environment = ""', "line 2.*1 to 40 characters"),
    ],
)
def test_a_mistake_in_the_file_of_queues_has_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "queues.toml").write_text(f"[a]\n{line}\n")
    with pytest.raises(SettingsError, match=message):
        load_queues(Settings(mongo_uri=URI, queues=str(tmp_path / "queues.toml")))
