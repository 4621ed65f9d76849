"""Connection strings: catches options that jobmon accepts although the driver refuses them."""

import pytest
from marshmallow import ValidationError

from jobmon.mongo_uri import check_mongo_uri


@pytest.mark.parametrize(
    "options",
    [
        "",
        "readPreference=secondary",
        "readpreference=secondaryPreferred&maxStalenessSeconds=90&readPreferenceTags=dc:east",
        "readPreference=nearest&maxStalenessSeconds=-1",
    ],
)
@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_read_preferences_are_accepted(scheme: str, options: str) -> None:
    check_mongo_uri(f"{scheme}://ada:secret@db.example.com/shop?{options}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("maxStalenessSeconds=120", "need a readPreference that is not primary"),
        ("readPreference=primary&readPreferenceTags=dc:east", "need a readPreference"),
        ("readPreference=secondary&maxstalenessseconds=30", "less than 90"),
    ],
)
@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_read_preferences_that_the_driver_refuses_are_refused(
    scheme: str, options: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as error:
        check_mongo_uri(f"{scheme}://ada:secret@db.example.com/shop?{options}")
    assert "secret" not in str(error.value)


def test_option_that_needs_a_srv_string_is_accepted_in_one() -> None:
    check_mongo_uri("mongodb+srv://db.example.com/shop?srvMaxHosts=2")
