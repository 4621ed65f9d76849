"""Checks MongoDB connection strings without a connection and without a DNS query."""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, cast

from marshmallow import ValidationError
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

_MIN_STALENESS_S = 90  # MongoDB's specification requires it
_SRV_ADDRESS = re.compile(r"mongodb\+srv://([^@/?]*@)?[^@/?:,\s\[\]]+([/?].*)?")


def check_mongo_uri(value: str) -> None:
    """Raise ValidationError for a bad connection string; the message repeats no part of `value`."""
    options = _parse_options(value)
    is_primary_only = options.get("readPreference", "primary") == "primary"
    if is_primary_only and ("maxStalenessSeconds" in options or "readPreferenceTags" in options):
        raise ValidationError(
            "maxStalenessSeconds and readPreferenceTags need a readPreference that is not primary."
        )
    if 0 <= options.get("maxStalenessSeconds", -1) < _MIN_STALENESS_S:
        raise ValidationError(f"maxStalenessSeconds is less than {_MIN_STALENESS_S}.")


@cache  # the queues of one deployment often have the same connection string
def _parse_options(value: str) -> Mapping[str, Any]:
    """The options of a connection string; the case of their names does not matter.

    Raises ValidationError. Empty for a mongodb+srv string whose options the parser refuses.
    """
    if value.startswith("mongodb+srv://"):
        # The driver's parser queries the DNS, which may be unavailable while the service starts.
        if not _SRV_ADDRESS.fullmatch(value):
            raise ValidationError(
                "Not of the form mongodb+srv://USER:PASSWORD@HOST/DATABASE: one host name, no port."
            )
        with suppress(ValidationError):  # it refuses options that need mongodb+srv: srvMaxHosts
            return _parse_options(value.replace("mongodb+srv", "mongodb", 1))
        return {}
    try:
        return cast(Mapping[str, Any], parse_uri(value, warn=False)["options"])
    except (PyMongoError, ValueError):
        raise ValidationError(
            "Not a MongoDB connection string (mongodb://… or mongodb+srv://…)."
        ) from None
    except OSError:  # while the driver parses, it reads the files of certificates
        raise ValidationError("A file named in the connection string cannot be read.") from None
