"""Signed webhooks: catches a wrong signature, a followed redirect, and a reason of a failure that
shows the receiver's address."""

import base64
import hashlib
import hmac
import json
import re
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmon.diagnosis.notices import CheckKind, Level
from jobmon.notify import webhook
from jobmon.notify.message import Message, Sender
from jobmon.notify.problems import Problem
from jobmon.notify.tracking import Change, News
from jobmon.notify.webhook import DeliveryError, send_webhook, sign
from jobmon.settings.receivers import decode_signing_secret

from ..conftest import NOW
from ..support.receiver import SIGNING_SECRET, WebhookReceiver

KEY = decode_signing_secret(SIGNING_SECRET)
STUCK = Problem(
    kind=CheckKind.LEASES,
    level=Level.BAD,
    text="3 jobs stuck",
    since=NOW - timedelta(minutes=5),
    count=3,
    address="/dashboard/jobs?condition=expired",
)
FAILING = Problem(
    kind=CheckKind.FAILURES, level=Level.WATCH, text="50% of a failed", types=frozenset("ba")
)
SENDER = Sender(queue="mail", environment="PROD", url="https://jobs.example/queues/mail")
MESSAGE = Message(
    id="msg_1",
    made_at=NOW,
    sender=SENDER,
    news=[
        News(change=Change.BEGINS, problem=STUCK),
        News(change=Change.OVER, problem=FAILING, ended_at=NOW),
    ],
    level=Level.BAD,
)


def test_signature_equals_the_example_of_the_standard() -> None:
    """The example is from the specification of Standard Webhooks."""
    key = decode_signing_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_webhook_is_signed_and_has_only_the_notices(receiver: WebhookReceiver) -> None:
    started_at = int(time.time())
    send_webhook(receiver.url, KEY, MESSAGE)
    (request,) = receiver.received
    sent_at = int(request.headers["webhook-timestamp"])
    assert started_at <= sent_at <= time.time()
    expected = hmac.digest(KEY, f"msg_1.{sent_at}.".encode() + request.body, hashlib.sha256)
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert request.id == "msg_1"
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    now = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    since = f"{NOW - timedelta(minutes=5):%Y-%m-%d %H:%M} UTC"
    assert json.loads(request.body) == {
        "type": "jobmon.notices",
        "timestamp": now,
        "data": {
            "queue": "mail",
            "environment": "PROD",
            "url": "https://jobs.example/queues/mail/dashboard",
            "level": "bad",
            "text": "[PROD] jobmon, mail: 2 notices\n"
            f"New (urgent): 3 jobs stuck (since {since})\n"
            "https://jobs.example/queues/mail/dashboard/jobs?condition=expired\n"
            f"Over: 50% of a failed (until {NOW:%Y-%m-%d %H:%M} UTC)\n"
            "https://jobs.example/queues/mail/dashboard",
            "notices": [
                {
                    "change": "begins",
                    "kind": "expired_leases",
                    "level": "bad",
                    "text": "3 jobs stuck",
                    "since": f"{NOW - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}",
                    "endedAt": None,
                    "count": 3,
                    "types": [],
                    "url": "https://jobs.example/queues/mail/dashboard/jobs?condition=expired",
                },
                {
                    "change": "over",
                    "kind": "failure_rates",
                    "level": "watch",
                    "text": "50% of a failed",
                    "since": None,
                    "endedAt": now,
                    "count": None,
                    "types": ["a", "b"],
                    "url": None,
                },
            ],
        },
    }


@pytest.mark.parametrize(
    ("news", "title"),
    [
        ([], "[PROD] jobmon, mail: this is a test of notifications"),
        (MESSAGE.news[:1], "[PROD] jobmon, mail: 3 jobs stuck"),
        (MESSAGE.news[1:], "[PROD] jobmon, mail: over: 50% of a failed"),
        ([*MESSAGE.news[1:]] * 2, "[PROD] jobmon, mail: 2 notices over"),
    ],
    ids=["test", "one new notice", "one notice over", "all notices over"],
)
def test_title_is_the_only_notice_or_the_number_of_notices(news: list[News], title: str) -> None:
    assert Message(id="m", made_at=NOW, sender=SENDER, news=news).render_title() == title


def test_documented_verification_accepts_only_signed_messages(
    receiver: WebhookReceiver,
) -> None:
    """Runs the Python example of docs/notifications.md."""
    page = (Path(__file__).parents[2] / "docs/notifications.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    send_webhook(receiver.url, KEY, MESSAGE)
    (request,) = receiver.received
    verify, headers = namespace["verify"], request.headers
    assert verify(SIGNING_SECRET, headers, request.body)
    assert not verify(SIGNING_SECRET, headers, request.body + b" ")
    assert not verify("whsec_" + "A" * 32, headers, request.body)
    old_timestamp = str(int(headers["webhook-timestamp"]) - 301)
    assert not verify(SIGNING_SECRET, headers | {"webhook-timestamp": old_timestamp}, request.body)


def test_credentials_of_an_address_are_sent_as_a_header(receiver: WebhookReceiver) -> None:
    send_webhook(receiver.url.replace("://", "://me:p%40ss@") + "?a=b#c", KEY, MESSAGE)
    (request,) = receiver.received
    assert request.path == "/hook?a=b"
    assert base64.b64decode(request.headers["authorization"].split()[1]) == b"me:p@ss"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: WebhookReceiver, status: int) -> None:
    """Catches a message with credentials that is sent to an address chosen by another server."""
    receiver.status, receiver.headers = status, {"Location": receiver.url.replace("hook", "other")}
    with pytest.raises(DeliveryError) as error:
        send_webhook(receiver.url, KEY, MESSAGE)
    assert str(error.value) == f"it answered HTTP {status} (redirects are not followed)"
    assert [request.path for request in receiver.received] == ["/hook"]


def test_failures_have_a_reason_without_the_address(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.status = 500
    with pytest.raises(DeliveryError, match=r"^it answered HTTP 500$"):
        send_webhook(receiver.url, KEY, MESSAGE)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/secret-token"
        with pytest.raises(DeliveryError, match=r"^connection refused$"):
            send_webhook(url, KEY, MESSAGE)
    with pytest.raises(DeliveryError, match=r"^not reachable \(gaierror\)$"):
        send_webhook("http://secret-token.invalid/", KEY, MESSAGE)
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    receiver.is_dripping = True  # catches a time limit that restarts at each byte
    with pytest.raises(DeliveryError, match=r"^no answer in 0\.2 s$"):
        send_webhook(receiver.url, KEY, MESSAGE)
    receiver.may_answer.clear()
    with pytest.raises(DeliveryError, match=r"^no answer in 0\.2 s$"):
        send_webhook(receiver.url, KEY, MESSAGE)
