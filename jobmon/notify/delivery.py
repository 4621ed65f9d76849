"""Delivers messages, each in a thread: a slow receiver does not delay another."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from jobmon.notify.apprise_receiver import AppriseReceiver
from jobmon.notify.message import Message
from jobmon.notify.webhook import DeliveryError, send_webhook
from jobmon.settings import Settings
from jobmon.settings.receivers import ReceiverAddress, decode_signing_secret

log = logging.getLogger(__name__)

Send = Callable[[Message], None]


class Receiver:
    """A receiver that gets one message at a time.

    At most one message of each queue waits here: a queue submits the next after an outcome.
    """

    def __init__(self, address: ReceiverAddress, send: Send) -> None:
        self.address = address
        self._send = send
        self._sending = threading.Lock()

    @property
    def name(self) -> str:
        """The receiver's name in the log and in metrics."""
        return self.address.name

    def submit(self, message: Message) -> Future[None]:
        """Send a message soon; the future raises DeliveryError if the receiver did not take it."""
        result = Future[None]()
        # A pool would wait for a slow receiver when the process ends.
        threading.Thread(target=self._deliver, args=(message, result), daemon=True).start()
        return result

    def send_now(self, message: Message) -> None:
        """Send a message in this thread; raises DeliveryError."""
        try:
            self._send(message)
        except DeliveryError:
            raise
        except Exception as error:
            log.exception("sending to %s failed", self.name)
            raise DeliveryError(f"jobmon failed ({type(error).__name__})") from None

    def _deliver(self, message: Message, result: Future[None]) -> None:
        with self._sending:
            if not result.set_running_or_notify_cancel():
                return  # cancelled: this process has stopped collecting the queue
            try:
                self.send_now(message)
            except DeliveryError as error:
                result.set_exception(error)
            else:
                result.set_result(None)


def open_receivers(settings: Settings) -> list[Receiver]:
    """The receivers of JOBMON_NOTIFY_URLS; raises SettingsError for one that cannot be used."""
    return [
        Receiver(address, _choose_sender(address, settings)) for address in settings.notify_urls
    ]


def _choose_sender(address: ReceiverAddress, settings: Settings) -> Send:
    if address.is_webhook:
        key = decode_signing_secret(settings.notify_secret or "")
        return partial(send_webhook, address.url, key)
    return AppriseReceiver(address).send
