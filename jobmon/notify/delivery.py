"""Delivers messages, in a thread for each receiver: a slow receiver does not delay another."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from jobmon.notify.message import Message
from jobmon.notify.services import AppriseReceiver
from jobmon.notify.webhook import DeliveryError, send_webhook
from jobmon.settings import Settings
from jobmon.settings.receivers import ReceiverAddress, decode_signing_secret

log = logging.getLogger(__name__)

Send = Callable[[Message], None]


class Receiver:
    """A receiver and its thread, which sends one message at a time.

    At most one message of each queue waits here: a queue submits the next after an outcome.
    """

    def __init__(self, address: ReceiverAddress, send: Send) -> None:
        self.address = address
        self._send = send
        self._waiting: queue.SimpleQueue[tuple[Message, Future[None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The receiver's name in the log and in metrics."""
        return self.address.name

    def submit(self, message: Message) -> Future[None]:
        """Send a message soon; the future raises DeliveryError if the receiver refused it."""
        result = Future[None]()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="receiver", daemon=True)
                self._thread.start()
        self._waiting.put((message, result))
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

    def close(self) -> None:
        """End the thread after the messages that were submitted before."""
        self._waiting.put(None)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            message, result = item
            if not result.set_running_or_notify_cancel():
                continue  # cancelled: this process has stopped collecting the queue
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
