"""Hides databases of other tests on the same server: a search for jobs must not find them."""

from typing import Any

import pytest
from pymongo import MongoClient

_list_all = MongoClient.list_database_names


@pytest.fixture(autouse=True)
def _hide_other_databases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients list only system databases and databases with the prefix of this test."""
    if "database" not in request.fixturenames:
        return
    prefixes = (request.getfixturevalue("database").name, "admin", "config", "local")

    def list_visible(client: MongoClient[Any], *arguments: Any, **options: Any) -> list[str]:
        names = _list_all(client, *arguments, **options)
        return [name for name in names if name.startswith(prefixes)]

    monkeypatch.setattr(MongoClient, "list_database_names", list_visible)
