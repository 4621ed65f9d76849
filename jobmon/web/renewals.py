"""Renews sessions at the identity provider, once for all requests that need it at the same time.

Many providers accept a refresh token only once, and end the session at its second use. The tabs of
a browser may renew in the same second, in different processes. The first process puts the answer
into a file of this machine, encrypted, and the other processes read it there.
"""

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from jobmon.single_flight import SingleFlightCache
from jobmon.web.oidc import Identity
from jobmon.web.sessions import SessionKeys

CACHE_TTL_S = 30  # how long the answer for a refresh token can be shared
_MAX_FILE_AGE_S = 300  # older files are deleted
_MAX_BYTES = 64 * 1_024


class Renewals:
    """Gets the identity for a refresh token, from the provider or from a renewal seconds ago.

    >>> Renewals(keys).get(refresh_token, lambda: provider.renew(refresh_token, subject))
    """

    def __init__(self, keys: SessionKeys, folder: Path | None = None) -> None:
        self._keys = keys
        self._folder = folder or Path(tempfile.gettempdir()) / f"jobmon-renewals-{os.geteuid()}"
        self._in_process = SingleFlightCache[Identity](size=200)

    def get(self, refresh_token: str, renew: Callable[[], Identity]) -> Identity:
        """The identity for a refresh token; raises what `renew` raises."""
        token_hash = hashlib.sha256(refresh_token.encode()).hexdigest()
        return self._in_process.get(token_hash, lambda: self._share(token_hash, renew), CACHE_TTL_S)

    def end(self, session_id: str) -> None:
        """Record that a session has ended: a renewal that is under way must not bring it back."""
        with suppress(OSError):
            self._require_private_folder()
            self._make_end_path(session_id).touch(mode=0o600)
            self._delete_old_files()

    def has_ended(self, session_id: str) -> bool:
        """Whether a session ended in the last minutes, by `end` of a process on this machine."""
        with suppress(OSError):
            self._require_private_folder()
            return self._make_end_path(session_id).exists()
        return False

    def _make_end_path(self, session_id: str) -> Path:
        return self._folder / f"end-{hashlib.sha256(session_id.encode()).hexdigest()}"

    def _share(self, token_hash: str, renew: Callable[[], Identity]) -> Identity:
        try:
            self._require_private_folder()
            file = (self._folder / token_hash).open("a+b")
        except OSError:  # the folder is read-only or another user's: processes share no answer
            return renew()
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, or the process ends
            identity = self._read(file)
            if identity is None:
                identity = renew()
                self._write(file, identity)
        return identity

    def _require_private_folder(self) -> None:
        """Create the folder; raises OSError if somebody else could have put files into it."""
        with suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        folder = self._folder.lstat()
        is_private = stat.S_ISDIR(folder.st_mode) and not folder.st_mode & 0o077
        if not is_private or folder.st_uid != os.geteuid():
            raise OSError("the folder is not private")

    def _read(self, file: BinaryIO) -> Identity | None:
        file.seek(0)
        content = self._keys.unseal(
            "renewal", file.read(_MAX_BYTES).decode(errors="replace"), CACHE_TTL_S
        )
        return None if content is None else Identity(**content | {"roles": tuple(content["roles"])})

    def _write(self, file: BinaryIO, identity: Identity) -> None:
        with suppress(OSError):  # a full disk: other processes query the provider
            file.seek(0)
            file.truncate()
            file.write(self._keys.seal("renewal", asdict(identity)).encode())
            file.flush()
        self._delete_old_files()

    def _delete_old_files(self) -> None:
        oldest_kept = time.time() - _MAX_FILE_AGE_S
        with suppress(OSError):
            for path in self._folder.iterdir():
                if path.lstat().st_mtime < oldest_kept:
                    path.unlink(missing_ok=True)
