"""Sends a message with Apprise, which supports more than a hundred services."""

import logging
import re
import time
from typing import TYPE_CHECKING

from jobmon.diagnosis.notices import Level
from jobmon.notify.message import Message
from jobmon.notify.webhook import DeliveryError
from jobmon.settings import SettingsError
from jobmon.settings.receivers import ReceiverAddress

if TYPE_CHECKING:
    from apprise import NotifyType

TIMEOUT_S = 30.0  # for a whole attempt
REPEAT_LOG_AFTER_S = 3_600.0
# In chats, `@everyone` and `<!channel>` call all members: a type can have such a name.
_MENTION = re.compile(r"@(?=\w)|<(?=[!@])")
_MAX_REMEMBERED = 1_000  # log messages
_NOT_INSTALLED = "needs Apprise: pip install 'mongo-jobmon[notify]'"


class AppriseReceiver:
    """A receiver at an address of Apprise; SettingsError if Apprise is missing or refuses it."""

    def __init__(self, address: ReceiverAddress) -> None:
        try:
            # Imported only for an address of Apprise: the import takes a second.
            from apprise import Apprise, AppriseAsset, PersistentStoreMode  # noqa: PLC0415
        except ImportError:
            raise SettingsError(f"JOBMON_NOTIFY_URLS: {address.name} {_NOT_INSTALLED}") from None
        asset = AppriseAsset(
            app_id="jobmon",
            app_desc="jobmon",
            async_mode=False,
            http_redirects=False,
            service_timeout=TIMEOUT_S,
            storage_mode=PersistentStoreMode.MEMORY,
        )
        logger = logging.getLogger("apprise")
        logger.disabled = True  # Apprise's message about a bad address can quote a token
        try:
            self._apprise: Apprise = Apprise(asset=asset)
            is_accepted = self._apprise.add(address.url)
        finally:
            logger.disabled = False
        if not is_accepted:
            raise SettingsError(
                f"JOBMON_NOTIFY_URLS: Apprise does not accept the address of {address.name}: "
                "https://appriseit.com/services/ has the form for each service"
            )
        _limit_log(logger)

    def send(self, message: Message) -> None:
        """Send a message; raises DeliveryError if the service did not accept it."""
        from apprise import NotifyFormat  # noqa: PLC0415

        is_sent = self._apprise.notify(
            title=_break_mentions(message.render_title()),
            body=_break_mentions(message.render_text()),
            notify_type=_choose_type(message),
            body_format=NotifyFormat.TEXT,
        )
        if not is_sent:
            raise DeliveryError("the service did not take it")


def _break_mentions(text: str) -> str:
    """The text with an invisible space in each mention, so that it calls nobody."""
    return _MENTION.sub("\\g<0>\u200b", text)


def _choose_type(message: Message) -> "NotifyType":
    """The kind of a message: SUCCESS, with which services close incidents, if no notice is open."""
    from apprise import NotifyType  # noqa: PLC0415

    if not message.news:
        return NotifyType.INFO
    by_level = {Level.BAD: NotifyType.FAILURE, Level.WATCH: NotifyType.WARNING}
    return NotifyType.SUCCESS if message.level is None else by_level[message.level]


class _RepeatFilter(logging.Filter):
    """Drops a message that was logged less than an hour ago: a receiver can be down for days."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record."""
        text, now = record.getMessage(), time.monotonic()
        if now < self._logged.get(text, -REPEAT_LOG_AFTER_S) + REPEAT_LOG_AFTER_S:
            return False
        if len(self._logged) >= _MAX_REMEMBERED:
            self._logged.clear()
        self._logged[text] = now
        return True


def _limit_log(logger: logging.Logger) -> None:
    """Limit the logs of Apprise and urllib3 to warnings: at DEBUG they have messages and addresses.

    The same warning of Apprise is logged at most once an hour.
    """
    if not any(isinstance(log_filter, _RepeatFilter) for log_filter in logger.filters):
        logger.addFilter(_RepeatFilter())
    for name in ("apprise", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
