"""A receiver of webhooks over real HTTP."""

from collections.abc import Iterator

import pytest

from ..support.receiver import WebhookReceiver


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    server = WebhookReceiver()
    with server.running():
        yield server
