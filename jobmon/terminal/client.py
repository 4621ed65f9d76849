"""A client of the JSON API of a service over HTTP, or of a private service in this process."""

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx

from jobmon.settings import ADMIN_DASHBOARD, Settings, SettingsError, load_queues, read_variable

TIMEOUT_S = 15
# For a whole answer: a job of 16 MB takes a second.
MAX_ANSWER_S = 60
MAX_ANSWER_BYTES = 100 * 1_024**2
# The lifetime of the token for the private service; no other program gets this token.
TOKEN_LIFETIME = timedelta(days=30)
# The settings with these prefixes define who may call a service, and how often.
_CALLER_SETTING_PREFIXES = ("jwt_", "oidc_", "rate_limit", "role_", "subject_", "trusted_")


class AnswerError(Exception):
    """The API did not answer, or refused the request. The message is one line for people."""


class ApiClient:
    """Requests answers about one queue; without its name, about the default queue."""

    def __init__(self, http: httpx.Client, queue: str | None = None) -> None:
        """`http` must have the address of the service and the token."""
        self.address = str(http.base_url).rstrip("/")
        self.queue = queue
        self._http = http
        self._prefix = "" if queue is None else f"/queues/{quote(queue, safe='')}"

    def get_stats(self) -> dict[str, Any]:
        """`GET /admin/jobs/stats`."""
        return self.get("/admin/jobs/stats")

    def get_types(self, window: str) -> dict[str, Any]:
        """`GET /admin/jobs/types` for a window such as `1h`."""
        return self.get("/admin/jobs/types", range=window)

    def get_errors(self, **parameters: Any) -> dict[str, Any]:
        """`GET /admin/jobs/errors`."""
        return self.get("/admin/jobs/errors", **parameters)

    def get_workers(self, **parameters: Any) -> dict[str, Any]:
        """`GET /admin/jobs/workers`."""
        return self.get("/admin/jobs/workers", **parameters)

    def get_schedule(self) -> dict[str, Any]:
        """`GET /admin/jobs/schedule`."""
        return self.get("/admin/jobs/schedule")

    def list_jobs(self, **filters: Any) -> tuple[dict[str, Any], str]:
        """A page of jobs of all owners, and an empty text.

        If this is forbidden, only the caller's own jobs, and the reason.
        """
        try:
            return self.get("/admin/jobs/queue", **filters), ""
        except _ForbiddenError as error:
            return self.get("/jobs", **filters), f"only your own jobs are listed: {error}"

    def get_jobs(self, **filters: Any) -> dict[str, Any]:
        """The page of `list_jobs`, with its reason in `meta.reasons.owner`."""
        answer, reason = self.list_jobs(**filters)
        if reason:
            with expecting_form(self):
                answer["meta"]["reasons"]["owner"] = reason
        return answer

    def get_job(self, job_id: str) -> dict[str, Any]:
        """`GET /job`: a job with its attempts and why it does not run."""
        return self.get("/job", id=job_id)

    def get_queue(self) -> dict[str, Any]:
        """The entry of the queue in `GET /queues`, with its notices; AnswerError without one."""
        answer = self.get("/queues", has_queue_prefix=False)
        with expecting_form(self):
            queues: list[dict[str, Any]] = answer["data"]
            for entry in queues:
                if entry["name"] == self.queue or (self.queue is None and entry["isDefault"]):
                    return entry
        raise AnswerError(f"there is no queue {self.queue!r}")

    def get(self, path: str, *, has_queue_prefix: bool = True, **parameters: Any) -> dict[str, Any]:
        """The JSON object in a successful answer to a GET request; otherwise raises AnswerError.

        Parameters that are None are not sent. `has_queue_prefix`: whether the path of the client's
        queue is put before `path`.
        """
        query = {name: value for name, value in parameters.items() if value is not None}
        try:
            address = (self._prefix if has_queue_prefix else "") + path
            with self._http.stream("GET", address, params=query) as answer:
                body = self._read_body(answer)
        except httpx.TimeoutException:
            raise AnswerError(f"no answer from {self.address} in {TIMEOUT_S} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AnswerError(f"no answer from {self.address}: {error}") from None
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise AnswerError(
                f"{self.address} is no jobmon service: it answers {path} with {answer.status_code}"
            )
        if answer.is_success:
            return content
        is_forbidden = answer.status_code == httpx.codes.FORBIDDEN
        error_class = _ForbiddenError if is_forbidden else AnswerError
        raise error_class(_describe_refusal(content, answer.status_code))

    def _read_body(self, answer: httpx.Response) -> bytes:
        """The body of an answer; raises AnswerError if it does not end."""
        body, deadline = bytearray(), time.monotonic() + MAX_ANSWER_S
        for part in answer.iter_bytes():
            body += part
            if len(body) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                message = f"{MAX_ANSWER_BYTES:,} bytes or {MAX_ANSWER_S} s"
                raise AnswerError(f"the answer of {self.address} does not end within {message}")
        return bytes(body)


class _ForbiddenError(AnswerError):
    """The caller lacks the permission."""


@contextmanager
def expecting_form(client: ApiClient) -> Iterator[None]:
    """Raise AnswerError if an answer that is read in this block lacks a field or has another form.

    The service may be of another version, or no jobmon. Only read answers in the block: any mistake
    of this program would look like that, too.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f"{client.address} answers in an unknown form: is it another version of jobmon?"
        raise AnswerError(f"{message} ({type(error).__name__}: {error})") from error


def _describe_refusal(content: dict[str, Any], status: int) -> str:
    error = content.get("error")
    if not isinstance(error, dict):
        return f"the answer is {status}"
    details = error.get("details")
    reasons = [
        f"{field}: {' '.join(map(str, texts)) if isinstance(texts, list) else texts}"
        for field, texts in (details.items() if isinstance(details, dict) else ())
    ]
    return " ".join([str(error.get("message")), *reasons])


@contextmanager
def open_client(url: str | None, queue: str | None = None) -> Iterator[ApiClient]:
    """A client of the service at `url`; without a `url`, of a private service in this process.

    The token for a service is in JOBMON_TOKEN or in the file JOBMON_TOKEN_FILE. It is no argument,
    because other users of the machine can read the arguments of a command. The private service
    reads the database in JOBMON_MONGO_URI, needs no token, and shows what an admin sees. Raises
    AnswerError or SettingsError.
    """
    if url is None:
        with _open_database(queue) as client:
            yield client
        return
    token = read_variable("JOBMON_TOKEN")
    if not token:
        raise SettingsError("JOBMON_TOKEN: set it to a token of `jobmon token`")
    if not re.fullmatch(r"[!-~]+", token := token.strip()):  # httpx's error would quote it
        raise SettingsError(
            "JOBMON_TOKEN: not a token: it has a blank, a line end or a letter outside ASCII"
        )
    headers = {"Authorization": f"Bearer {token}"}
    try:
        http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S)
    except (httpx.InvalidURL, ValueError) as error:
        raise AnswerError(f"{url} is no address: {error}") from None
    with http:
        yield ApiClient(http, queue)


@contextmanager
def _open_database(queue: str | None) -> Iterator[ApiClient]:
    from jobmon.app import create_app
    from jobmon.web.auth import issue_token

    if read_variable("JOBMON_MONGO_URI") is None:
        raise SettingsError(
            "set JOBMON_URL to the address of a jobmon and JOBMON_TOKEN, "
            "or JOBMON_MONGO_URI to read the database"
        )
    settings = Settings.from_env(require_keys=False)
    permissions = {watched.permission for watched in load_queues(settings)} | {ADMIN_DASHBOARD}
    # Only this process can call the service: the token key is new, and requests are not limited.
    private_settings: dict[str, Any] = {
        setting.name: setting.default
        for setting in fields(Settings)
        if setting.name.startswith(_CALLER_SETTING_PREFIXES) and setting.default is not MISSING
    }
    private_settings |= {
        "jwt_secret_key": secrets.token_hex(32),
        "role_permissions": {"admin": frozenset(permissions)},
        "path_prefix": None,
        "actions": False,
        "log_level": "CRITICAL",
    }
    app = create_app(replace(settings, **private_settings))
    with app.app_context():
        token = issue_token("terminal", "admin", TOKEN_LIFETIME)
    http = httpx.Client(
        transport=httpx.WSGITransport(app=app, raise_app_exceptions=False),
        base_url="http://localhost",
        headers={"Authorization": f"Bearer {token}"},
        timeout=TIMEOUT_S,
    )
    client = ApiClient(http, queue)
    client.address = "the database"
    try:
        yield client
    finally:
        app.extensions["jobmon_queues"].close()
