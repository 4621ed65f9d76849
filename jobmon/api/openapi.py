"""Makes the OpenAPI document from the declarations of the blueprints.

The `access` of a `Routes` blueprint decides who may use its routes, and which errors they document.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from enum import Enum
from functools import lru_cache, wraps
from http import HTTPStatus
from threading import Lock
from typing import Any, Self

from apispec.ext.marshmallow import MarshmallowPlugin, resolver
from flask import Blueprint as FlaskBlueprint
from flask import Flask, Response, current_app, request
from flask_smorest import Api, Blueprint
from marshmallow import fields

from jobmon.api import answers, examples
from jobmon.api.body import Body
from jobmon.api.fields import OptionalDate
from jobmon.api.parameters import Parameters
from jobmon.api.search import document_search
from jobmon.web import auth, errors, rate_limit
from jobmon.web.compression import SharedContent
from jobmon.web.json_text import encode_line
from jobmon.web.queues import WatchedQueues, root_path

View = Callable[..., Any]
Decorator = Callable[[View], View]

BEARER = "bearer"

_ABOUT = """\
A monitor of job queues in MongoDB. Without JOBMON_ACTIONS it changes no jobs.

Dates are ISO 8601 in UTC with milliseconds and `Z`. A watched document can hold anything: missing
fields are null, and any other value in place of a date is shown as text.

Every error is an `Error`, including 404 `not_found` for an unknown path and 405
`method_not_allowed` (with `Allow`). A request that is not received within five seconds gets 408
`request_timeout`, a body of more than 64 KiB 413 `request_entity_too_large`. The token is checked
before the parameters. Unknown query parameters are ignored. HEAD gets the answer to GET, without
its body.

One jobmon can watch several queues. The paths of a queue begin with `/queues/{queue}`; paths
without it are about the default queue.
"""

_TAGS = {
    "jobs": "The caller's own jobs; any job for roles with the permission of the queue.",
    "admin": "The whole queue, for roles with its permission: ADMIN_DASHBOARD by default.",
    "queues": "The watched queues.",
    "actions": "Actions on jobs: requests, which an actor carries out, and their records. Only "
    "with JOBMON_ACTIONS; otherwise these paths return 404.",
    "health": "Liveness and readiness probes, without a token.",
    "mutes": "Adding and ending mutes of notices. Only with JOBMON_ACTIONS.",
}

RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before the next request.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_CHALLENGE = {
    "WWW-Authenticate": {
        "description": "The authentication scheme.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    }
}

# Errors that routes share: description, headers, and the codes, each of which has an example.
_ERRORS: dict[HTTPStatus, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    HTTPStatus.UNAUTHORIZED: (
        "The token is missing, expired or not valid.",
        _CHALLENGE,
        ("authentication_required", "token_expired", "token_invalid"),
    ),
    HTTPStatus.FORBIDDEN: ("The token lacks a permission.", {}, ("permission_denied",)),
    HTTPStatus.NOT_FOUND: ("There is no such path.", {}, ("not_found",)),
    HTTPStatus.UNPROCESSABLE_ENTITY: (
        "Bad parameters, or bad fields of the body; `details` has the messages for each.",
        {},
        ("validation_error",),
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "Too many requests of this caller or address, too many files or far pages at once, or too "
        "many actions of an owner.",
        RETRY_AFTER,
        ("rate_limited",),
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: ("Internal error.", {}, ("server_error",)),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "Something that the service needs is not available, or the service is overloaded.",
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


_FILE_DESCRIPTIONS = {
    "text/csv": (
        "With `format=csv`: a row of field names, then one row per {noun}. A complete file ends "
        "with a row of `#end`, the number of {noun}s and, if some may be missing, the reason."
    ),
    "application/x-ndjson": (
        "With `format=ndjson`: one {schema} per line. A complete file ends with the line "
        '`{{"end": true, "rows": n}}`, where n is the number of {noun}s; it has a `reason` if some '
        "may be missing."
    ),
}


_MAX_ROOTS = 4  # cached documents: one for each root path that proxies give to jobmon
# The routes with filters of jobs: they also have the parameters that search the payload.
_LIST_PATHS = ("/jobs", "/job/neighbors", "/admin/jobs/queue", "/admin/jobs/neighbors")


class _Example(dict[str, Any]):
    """An example that all copies of a route's documentation share."""

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self


class Access(Enum):
    """Who may use the routes of a blueprint: `ADMIN` is a role with the queue's permission."""

    ANYONE = "anyone"
    SIGNED_IN = "signed in"
    ADMIN = "admin"


_SHARED_ERRORS = {
    Access.ANYONE: (HTTPStatus.INTERNAL_SERVER_ERROR,),
    Access.SIGNED_IN: (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
}
_SHARED_ERRORS[Access.ADMIN] = (*_SHARED_ERRORS[Access.SIGNED_IN], HTTPStatus.FORBIDDEN)


class _ParameterReader:
    """Reads the parameters or the body of a view by a schema, in place of webargs.

    webargs looks up every parameter of the schema, even one that the request does not have.
    """

    DEFAULT_VALIDATION_STATUS = HTTPStatus.UNPROCESSABLE_ENTITY.value

    @staticmethod
    def use_args(schema: Parameters | Body, *, location: str) -> Callable[..., Any]:
        """A decorator for views: what the schema reads becomes their last positional argument."""
        assert (location == "json") == isinstance(schema, Body)  # noqa: S101

        def decorate(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def read(*args: Any, **kwargs: Any) -> Any:
                return view(*args, schema.read(request), **kwargs)

            return read

        return decorate


class Routes(Blueprint):  # type: ignore[misc] # flask-smorest has no types
    """A blueprint whose routes require `access`, and document it."""

    ARGUMENTS_PARSER = _ParameterReader()

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

    def arguments(self, schema: type[Parameters | Body], **options: Any) -> Any:
        """A decorator for views: documents the parameters or the body, and reads them."""
        return super().arguments(schema(), **options)

    def response(
        self,
        status: HTTPStatus,
        schema: type[answers.Answer],
        *,
        example: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """A decorator for views: documents the answer, and serializes all except a `Response`."""
        serializer = schema.shared()
        shared_example = None if example is None else _Example(example)
        document = super().response(status, serializer, example=shared_example, **options)

        def decorate(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def respond(*args: Any, **kwargs: Any) -> Response:
                answer = view(*args, **kwargs)
                if isinstance(answer, Response):
                    return answer
                text = encode_line(serializer.dump(answer))
                return Response(text, status, mimetype="application/json")

            return document(respond)

        return decorate

    def document_error(self, status: HTTPStatus, code: str, description: str) -> Decorator:
        """A decorator for views: documents an answer with an error that other routes lack."""
        document: Decorator = self.alt_response(
            status,
            schema=answers.Error.shared(),
            description=description,
            example=examples.ERRORS[code],
        )
        return document

    def document_files(self, noun: str, schema: str) -> Decorator:
        """A decorator for views: documents that a list can also be answered as a file.

        `noun`: what a row is about. `schema`: the name of a row's schema.
        """

        def document(view: View) -> View:
            for mimetype, template in _FILE_DESCRIPTIONS.items():
                text = template.format(noun=noun, schema=schema)
                view = self.alt_response(
                    HTTPStatus.OK,
                    schema={"type": "string", "description": text},
                    content_type=mimetype,
                    description=f"A page of {noun}s, or all matching {noun}s as a file.",
                    success=True,
                )(view)
            return view

        return document

    def register_views_in_doc(self, api: "DocumentedApi", *arguments: Any, **options: Any) -> None:
        """Postpone the documentation of the routes until the document is requested."""
        document = super().register_views_in_doc
        api.postponed.append(lambda: document(api, *arguments, **options))

    def _document_access(self, doc: dict[str, Any], _: dict[str, Any], **__: Any) -> dict[str, Any]:
        responses = doc.setdefault("responses", {})
        for status in _SHARED_ERRORS[self._access]:
            responses.setdefault(status, _name_response(status))
        if HTTPStatus.UNPROCESSABLE_ENTITY in responses:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            responses[status] = _name_response(status)
        doc["responses"] = dict(sorted(responses.items()))
        doc["security"] = [] if self._access is Access.ANYONE else [{BEARER: []}]
        return doc


class DocumentedApi(Api):  # type: ignore[misc] # flask-smorest has no types
    """flask-smorest with jobmon's errors. Routes are documented when the document is requested.

    Documenting them earlier would make the start take twice as long, and few processes serve the
    document.
    """

    DEFAULT_ERROR_RESPONSE_NAME = None  # every error is documented by name

    def __init__(self, app: Flask) -> None:
        self.postponed: list[Callable[[], None]] = []
        self._lock = Lock()
        info = {"description": _ABOUT, "license": {"name": "MIT", "identifier": "MIT"}}
        plugin = MarshmallowPlugin(schema_name_resolver=_name_component)
        options = {"info": info, "servers": [], "marshmallow_plugin": plugin}
        super().__init__(app, spec_kwargs=options)
        converter = self.ma_plugin.converter
        converter.add_attribute_function(_describe_field)
        converter.add_parameter_attribute_function(_describe_parameter)
        components = self.spec.components
        components.security_scheme(
            BEARER,
            {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "From the identity provider, or printed by "
                "`jobmon token --sub ID --role ROLE` if a secret is configured.",
            },
        )
        components.schema("AttemptError", schema=answers.AttemptError.shared())
        components.schema("JobError", schema=answers.JobError.shared())

    def to_dict(self, root: str = "") -> dict[str, Any]:
        """The whole document, for a service below the path `root`; `root` may be empty."""
        with self._lock:
            while self.postponed:
                self.postponed.pop(0)()
            document: dict[str, Any] = deepcopy(self.spec.to_dict())
        document["servers"] = _list_servers(root)
        self._add_search_fields(document)
        return document

    def _add_search_fields(self, document: dict[str, Any]) -> None:
        """Document the fields of the payload that can be searched in any of the queues."""
        queues: WatchedQueues = self._app.extensions["jobmon_queues"]
        names = dict.fromkeys(
            name for settings in queues.all_settings() for name in settings.search_fields
        )
        for path in _LIST_PATHS:
            document["paths"][path]["get"]["parameters"] += document_search(names)

    def _register_error_handlers(self) -> None:
        errors.register(self._app)

    def _register_pagination_header(self) -> None:
        """Register nothing: jobmon has no pagination header."""

    def _register_responses(self) -> None:
        for status, (description, headers, codes) in _ERRORS.items():
            content = {
                "schema": answers.Error.shared(),
                "examples": {code: {"value": examples.ERRORS[code]} for code in codes},
            }
            response = {"description": description, "content": {"application/json": content}}
            if headers:
                response["headers"] = headers
            self.spec.components.response(_name_response(status), response)


def _name_response(status: HTTPStatus) -> str:
    """The name of an error's component; in Python 3.13 the status 422 has another name."""
    is_renamed = status is HTTPStatus.UNPROCESSABLE_ENTITY
    return "UNPROCESSABLE_ENTITY" if is_renamed else status.name


def _list_servers(root: str) -> list[dict[str, Any]]:
    return [
        {"url": root or "/", "description": "The default queue."},
        {
            "url": f"{root}/queues/{{queue}}",
            "description": "One of several queues; `GET /queues` lists their names.",
            "variables": {"queue": {"default": "default"}},
        },
    ]


def _name_component(schema: Any) -> str:
    """The public name of an answer: `Forecast` for `ForecastAnswer`."""
    return resolver(schema).removesuffix("Answer")


def _describe_field(_: Any, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    """The `json_schema` of a field, if any; it overrides the schema of the marshmallow type."""
    schema: dict[str, Any] = getattr(field, "json_schema", {})
    return schema


def _describe_parameter(_: Any, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    """Allow an empty value of a date: the format in its schema forbids it."""
    return {"allowEmptyValue": True} if isinstance(field, OptionalDate) else {}


def render_document(app: Flask, root: str = "") -> str:
    """The document as JSON text with a final newline; always the same for the same app and root."""
    api: DocumentedApi = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    return json.dumps(api.to_dict(root), indent=2, ensure_ascii=False) + "\n"


def blueprint() -> FlaskBlueprint:
    """`GET /openapi.json`, without a token: it holds no data."""
    routes = FlaskBlueprint("openapi", __name__)

    @lru_cache(_MAX_ROOTS)  # no route is added after the first request
    def read_document(root: str) -> SharedContent:
        return SharedContent(render_document(current_app, root).encode())

    @routes.get("/openapi.json")
    def openapi_json() -> Response:
        return read_document(root_path()).respond("application/json")

    return routes
