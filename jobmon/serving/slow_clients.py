"""The answer to a request that was not received in time, and a log line about slow clients."""

import logging
import time

from jobmon.serving import limits

log = logging.getLogger(__name__)

_TIMEOUT_BODY = (
    b'{"error":{"code":"request_timeout",'
    b'"message":"The request was not received within %d seconds."}}\n' % limits.REQUEST_TIMEOUT_S
)
TIMEOUT_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"Cache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Connection: close\r\n\r\n%s" % (len(_TIMEOUT_BODY), _TIMEOUT_BODY)
)


class SlowClientLog:
    """Counts clients that were too slow, and logs the counts at most every ten seconds."""

    def __init__(self) -> None:
        self.timed_out = 0  # connections whose request was not received in time
        self.closed = 0  # connections that stalled, or were closed to free resources
        self._reported_at = -float("inf")

    def report(self) -> None:
        """Log the counts since the last report, unless both are 0 or that report is too recent."""
        if not (self.timed_out or self.closed):
            return
        if time.monotonic() - self._reported_at < limits.REPORT_EVERY_S:
            return
        log.warning(
            "slow clients: %d requests not received in time, %d connections closed",
            self.timed_out,
            self.closed,
        )
        self.timed_out = self.closed = 0
        self._reported_at = time.monotonic()
