"""Notifications by Apprise to real servers: catches a lost message, and a secret in the log."""

import email
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from apprise import Apprise, NotifyBase

from jobmon.demo.mongod import free_port
from jobmon.diagnosis.notices import Level
from jobmon.notify import apprise_receiver
from jobmon.notify.delivery import Receiver, open_receivers
from jobmon.notify.webhook import DeliveryError
from jobmon.settings import Settings, SettingsError
from jobmon.settings.receivers import parse_receivers

from ..support.receiver import SIGNING_SECRET, WebhookReceiver
from .test_webhook import MESSAGE

PAGE = Path(__file__).parents[2] / "docs/notifications.md"
PASSWORD = "a-very-secret-password"

OpenReceiver = Callable[[str], Receiver]


class MailServer:
    """A mail server that keeps its mails. While `refuses` is true, it refuses every mail."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.refuses = False
        self.port = free_port()

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:  # noqa: N802
        if self.refuses:
            return "451 Try again later"
        parsed = email.message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        self.recipients += envelope.rcpt_tos
        return "250 OK"


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    controller = Controller(server, hostname="127.0.0.1", port=server.port)
    controller.start()
    yield server
    controller.stop()


@pytest.fixture
def open_receiver(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> OpenReceiver:
    # By default, Apprise waits some seconds between two messages to a service.
    monkeypatch.setattr(NotifyBase, "request_rate_per_sec", 0)

    def make(url: str) -> Receiver:
        (receiver,) = open_receivers(make_settings(notify_urls=parse_receivers(url)))
        return receiver

    return make


@pytest.fixture
def mail_url(mail_server: MailServer) -> str:
    return f"mailto://127.0.0.1:{mail_server.port}?from=jobmon@example.com&to=ops@example.com&format=text"


def test_a_mail_has_all_notices_and_a_title(
    open_receiver: OpenReceiver, mail_server: MailServer, mail_url: str
) -> None:
    open_receiver(mail_url).submit(MESSAGE).result()
    (received,) = mail_server.mails
    assert mail_server.recipients == ["ops@example.com"]
    assert "jobmon@example.com" in received["From"]
    assert received["Subject"] == "[PROD] jobmon, mail: 2 notices"
    lines = received.get_content().split()
    assert " ".join(lines) == " ".join(MESSAGE.render_text().split())


def test_a_mail_server_that_is_down_and_back_gets_the_message(
    open_receiver: OpenReceiver,
    mail_server: MailServer,
    mail_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = open_receiver(mail_url)
    mail_server.refuses = True
    for _ in range(3):
        with pytest.raises(DeliveryError, match=r"^the service did not take it$"):
            service.submit(MESSAGE).result()
    lines = [record.getMessage() for record in caplog.records if record.name == "apprise"]
    assert len(lines) == len(set(lines)) > 0  # a repeated attempt does not log the same again
    mail_server.refuses = False
    service.submit(MESSAGE).result()
    assert len(mail_server.mails) == 1


def test_a_service_over_http_gets_the_type_and_no_redirect_is_followed(
    open_receiver: OpenReceiver, receiver: WebhookReceiver
) -> None:
    service = open_receiver(receiver.url.replace("http://", "json://"))
    messages = [
        MESSAGE,
        replace(MESSAGE, level=Level.WATCH),
        replace(MESSAGE, level=None),
        replace(MESSAGE, news=[], level=None),
    ]
    for message in messages:
        service.submit(message).result()
    bodies = [json.loads(request.body) for request in receiver.received]
    assert [body["type"] for body in bodies] == ["failure", "warning", "success", "info"]
    assert bodies[0]["title"] == "[PROD] jobmon, mail: 2 notices"
    assert bodies[0]["message"].splitlines() == MESSAGE.render_text().splitlines()
    receiver.status, receiver.headers = 307, {"Location": receiver.url + "/other"}
    with pytest.raises(DeliveryError):
        service.submit(MESSAGE).result()
    assert {request.path.rstrip("/") for request in receiver.received} == {"/hook"}


def test_name_of_a_type_calls_nobody_in_a_chat(
    open_receiver: OpenReceiver, receiver: WebhookReceiver
) -> None:
    service = open_receiver(receiver.url.replace("http://", "json://"))
    news = MESSAGE.news[0]
    text = "@everyone, <!channel> and ada@example.org are dead: a @ b"
    named = replace(news, problem=replace(news.problem, text=text))
    service.submit(replace(MESSAGE, news=[named])).result()
    body = json.loads(receiver.received[0].body)
    shown = "@\u200beveryone, <\u200b!channel> and ada@\u200bexample.org are dead: a @ b"
    assert shown in body["title"]
    assert shown in body["message"]


def test_attempt_ends_if_the_service_does_not_answer(
    open_receiver: OpenReceiver, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apprise_receiver, "TIMEOUT_S", 0.3)
    service = open_receiver(receiver.url.replace("http://", "json://"))
    receiver.may_answer.clear()
    with pytest.raises(DeliveryError):
        service.submit(MESSAGE).result()


@pytest.mark.parametrize(
    "url",
    [
        f"slack://{PASSWORD}/too/short",
        f"unknown-service://{PASSWORD}",
        f"mailto://user:{PASSWORD}@127.0.0.1?from=nobody",
    ],
    ids=["slack", "unknown", "mail"],
)
def test_start_fails_without_a_secret_if_apprise_refuses_an_address(
    open_receiver: OpenReceiver, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(SettingsError) as error:
        open_receiver(url)
    name = url.partition(":")[0]
    assert f"Apprise does not accept the address of {name}" in str(error.value)
    assert PASSWORD not in str(error.value) + caplog.text


def test_without_apprise_a_service_is_refused_and_webhooks_work(
    open_receiver: OpenReceiver,
    monkeypatch: pytest.MonkeyPatch,
    make_settings: Callable[..., Settings],
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(SettingsError) as error:
        open_receiver("slack://a/b/c")
    assert str(error.value) == (
        "JOBMON_NOTIFY_URLS: slack needs Apprise: pip install 'mongo-jobmon[notify]'"
    )
    urls = parse_receivers("https://hook.test")
    receivers = open_receivers(make_settings(notify_urls=urls, notify_secret=SIGNING_SECRET))
    assert [receiver.name for receiver in receivers] == ["webhook"]


def test_no_part_of_a_message_or_an_address_is_logged(
    open_receiver: OpenReceiver, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    url = receiver.url.replace("http://", f"json://user:{PASSWORD}@").replace(
        "/hook", "/token-1234"
    )
    receiver.status = 500
    with caplog.at_level(logging.DEBUG):
        service = open_receiver(url)
        with pytest.raises(DeliveryError) as error:
            service.submit(MESSAGE).result()
    output = caplog.text + str(error.value)
    assert not [text for text in (PASSWORD, "token-1234", "3 jobs stuck") if text in output]


def test_addresses_in_the_docs_belong_to_their_services(open_receiver: OpenReceiver) -> None:
    urls = re.findall(r"^ +export JOBMON_NOTIFY_URLS='(\w+://[^']+)'", PAGE.read_text(), re.M)
    examples = [url for url in urls if not url.startswith("https")]
    names = {Apprise.instantiate(open_receiver(url).address.url).service_name for url in examples}
    assert {str(name) for name in names} == {"Slack", "E-Mail", "Pager Duty"}
