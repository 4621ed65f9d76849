"""The OpenAPI document: what the blueprints declare, with the failures that each route shares.

A `Routes` blueprint is guarded and documented by one declaration, so that neither can be forgotten.
"""

import json
from collections.abc import Callable
from enum import Enum
from functools import cache
from http import HTTPStatus
from threading import Lock
from typing import Any

from flask import Blueprint as FlaskBlueprint
from flask import Flask, Response, current_app
from flask_smorest import Api, Blueprint
from marshmallow import fields

from jobmon.api import examples, schemas
from jobmon.web import auth, errors, rate_limit
from jobmon.web.compression import fixed_response

RENEW = "jobmon openapi > docs/openapi.json"
BEARER = "bearer"

_ABOUT = """\
A read-only monitor of a job queue that other programs keep in MongoDB.

Dates are ISO 8601 in UTC with milliseconds and `Z`. A watched document may hold anything: what is
missing is null, and text that stands where a date belongs is shown as it is.

Every failure is an `Error`, also where no route is (404 `not_found`) and for a method that a route
does not have (405 `method_not_allowed`, with `Allow`). A HEAD is answered as the GET would be.
Before all that, a request that is not received within five seconds is 408 `request_timeout`, a
body of more than 64 KiB 413 `request_entity_too_large`. A token is checked before anything else is
looked at; parameters that are not named here are ignored.
"""

_TAGS = {
    "jobs": "Jobs of whoever asks.",
    "admin": "The whole queue: for roles with ADMIN_DASHBOARD.",
    "health": "Probes for whatever keeps the service running; no token.",
}

RETRY_AFTER = {
    "Retry-After": {
        "description": "After how many seconds to ask again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_CHALLENGE = {
    "WWW-Authenticate": {
        "description": "What is needed: a bearer token.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    }
}

# What the routes can fail with: description, headers, codes with an example each.
_FAILURES: dict[HTTPStatus, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    HTTPStatus.UNAUTHORIZED: (
        "No token, or one that is not good now.",
        _CHALLENGE,
        ("authentication_required", "token_expired", "token_invalid"),
    ),
    HTTPStatus.FORBIDDEN: ("The token's role has no ADMIN_DASHBOARD.", {}, ("permission_denied",)),
    HTTPStatus.NOT_FOUND: ("There is no route at this address.", {}, ("not_found",)),
    HTTPStatus.UNPROCESSABLE_ENTITY: (
        "Parameters that are wrong, or do not go together; `details` names each.",
        {},
        ("validation_error",),
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "More than the limits of one caller or one address, or one export too many.",
        RETRY_AFTER,
        ("rate_limited",),
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: ("A fault of the service's own.", {}, ("server_error",)),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "Something that the service depends on does not answer in time, or it has too much to do.",
        RETRY_AFTER,
        (
            "database_unavailable",
            "identity_provider_unavailable",
            "collector_unavailable",
            "revocations_lost",
            "overloaded",
        ),
    ),
}


_FILES = {
    "text/csv": (
        "With `format=csv`: a row a job, under a row of the fields' names. A file that is complete "
        "ends with a row of `#end` and the number of jobs."
    ),
    "application/x-ndjson": (
        "With `format=ndjson`: a line a job, each a JobSummary. A file that is complete ends with "
        'the line `{"end": true, "rows": n}`, n being the number of jobs.'
    ),
}


class Access(Enum):
    """Who may use a blueprint's routes."""

    ANYONE = "anyone"
    SIGNED_IN = "signed in"
    ADMIN = "admin"


_SHARED_FAILURES = {
    Access.ANYONE: (HTTPStatus.INTERNAL_SERVER_ERROR,),
    Access.SIGNED_IN: (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
}
_SHARED_FAILURES[Access.ADMIN] = (*_SHARED_FAILURES[Access.SIGNED_IN], HTTPStatus.FORBIDDEN)


class Routes(Blueprint):  # type: ignore[misc] # flask-smorest has no types
    """A blueprint whose routes are open to `access` only, and documented so."""

    def __init__(
        self, name: str, import_name: str, *, access: Access, url_prefix: str | None = None
    ) -> None:
        super().__init__(name, import_name, url_prefix=url_prefix, description=_TAGS[name])
        self._access = access
        self._prepare_doc_cbks.append(self._document_access)
        if access is not Access.ANYONE:
            is_admin = access is Access.ADMIN
            self.before_request(auth.require_admin if is_admin else auth.require_token)
            self.before_request(rate_limit.check)

    def as_files(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Document that a list is also answered as the files of `format`."""
        for mimetype, about in _FILES.items():
            view = self.alt_response(
                HTTPStatus.OK,
                schema={"type": "string", "description": about},
                content_type=mimetype,
                description="A page of jobs; a file where `format` says so.",
                success=True,
            )(view)
        return view

    def register_views_in_doc(self, api: "DocumentedApi", *arguments: Any, **options: Any) -> None:
        """Document the routes, once the document is asked for."""
        document = super().register_views_in_doc
        api.undocumented.append(lambda: document(api, *arguments, **options))

    def _document_access(self, doc: dict[str, Any], _: dict[str, Any], **__: Any) -> dict[str, Any]:
        responses = doc.setdefault("responses", {})
        for status in _SHARED_FAILURES[self._access]:
            responses.setdefault(status, status.name)
        doc["responses"] = dict(sorted(responses.items()))
        doc["security"] = [] if self._access is Access.ANYONE else [{BEARER: []}]
        return doc


class DocumentedApi(Api):  # type: ignore[misc] # flask-smorest has no types
    """flask-smorest, with the contract's errors instead of its own."""

    DEFAULT_ERROR_RESPONSE_NAME = None  # every failure is named

    def __init__(self, app: Flask) -> None:
        # It takes as long as all else that starting takes, and few processes are asked for it.
        self.undocumented: list[Callable[[], None]] = []
        self._lock = Lock()
        options = {"info": {"description": _ABOUT, "license": {"name": "MIT", "identifier": "MIT"}}}
        super().__init__(app, spec_kwargs=options)
        converter = self.ma_plugin.converter
        converter.add_attribute_function(_schema_of_field)
        converter.add_parameter_attribute_function(_parameter_of_field)
        components = self.spec.components
        components.security_scheme(
            BEARER,
            {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "`jobmon token --sub ID --role ROLE` prints one where a secret is "
                "configured; else it comes from the identity provider.",
            },
        )
        components.schema("AttemptError", schema=schemas.AttemptError)
        components.schema("JobError", schema=schemas.JobError)

    def to_dict(self) -> dict[str, Any]:
        """The whole document."""
        with self._lock:
            while self.undocumented:
                self.undocumented.pop(0)()
            document: dict[str, Any] = self.spec.to_dict()
        return document

    def _register_error_handlers(self) -> None:
        errors.register(self._app)

    def _register_pagination_header(self) -> None:
        """There is no such header here."""

    def _register_responses(self) -> None:
        for status, (description, headers, codes) in _FAILURES.items():
            content = {
                "schema": schemas.Error,
                "examples": {code: {"value": examples.ERRORS[code]} for code in codes},
            }
            response = {"description": description, "content": {"application/json": content}}
            if headers:
                response["headers"] = headers
            self.spec.components.response(status.name, response)


def _schema_of_field(_: Any, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    """What a field of ours says of itself, over what is known of the field that it is made of."""
    said: dict[str, Any] = getattr(field, "json_schema", {})
    return said


def _parameter_of_field(_: Any, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    """That a parameter may be given but empty, where its schema alone would forbid it."""
    return {"allowEmptyValue": True} if isinstance(field, schemas.Since) else {}


def document(app: Flask) -> str:
    """The document as JSON text, always the same for the same routes; ends with a newline."""
    api: DocumentedApi = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    return json.dumps(api.to_dict(), indent=2, ensure_ascii=False) + "\n"


def blueprint() -> FlaskBlueprint:
    """`GET /openapi.json`: open to anyone, for there is no data in it."""
    routes = FlaskBlueprint("openapi", __name__)

    @cache  # anyone may ask, and no route is added once requests come
    def text() -> bytes:
        return document(current_app).encode()

    @routes.get("/openapi.json")
    def openapi_json() -> Response:
        return fixed_response(text(), "application/json")

    return routes
