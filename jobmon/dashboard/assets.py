"""The static files of the pages, and the policy that lets pages load only from this server."""

import hashlib
from functools import cache
from http import HTTPStatus
from pathlib import Path

from flask import Response, request, url_for

from jobmon.web.compression import SharedContent
from jobmon.web.errors import ApiError
from jobmon.web.queues import root_path

FOLDER = Path(__file__).parent / "static"
# Not from the module `mimetypes`, whose tables differ from machine to machine.
MIMETYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@cache  # all apps in a process serve the same files
def _read_files(folder: Path) -> tuple[dict[str, SharedContent], str]:
    """All files below a folder by their relative paths, and a hash over all of them."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    digest = hashlib.blake2b(digest_size=6)
    for name, content in files.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    shared = {name: SharedContent(content) for name, content in files.items()}
    return shared, digest.hexdigest()


def asset_address(name: str) -> str:
    """The address of a static file; empty if it is missing: `make assets` builds some files.

    Every address contains a hash over all files. Browsers may keep a file, because any change gives
    all files new addresses. Modules that import each other by relative paths have the same version.
    """
    files, version = _read_files(FOLDER)
    if name not in files:
        return ""
    # The same address on the pages of all queues: a browser loads the file once.
    path = url_for("dashboard.versioned_file", version=version, name=name)
    return root_path() + path.removeprefix(request.script_root)


def serve_file(name: str, version: str = "") -> Response:
    """The file `name`, or ApiError 404; browsers may keep it a year if `version` is current."""
    files, current_version = _read_files(FOLDER)
    if name not in files:
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such file.")
    response = files[name].respond(MIMETYPES.get(Path(name).suffix, "application/octet-stream"))
    # During an upgrade, a page of the old version can request files from a new process.
    is_current = version == current_version
    response.headers["Cache-Control"] = (
        "public, max-age=31536000, immutable" if is_current else "no-cache"
    )
    return response
