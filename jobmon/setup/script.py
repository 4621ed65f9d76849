"""Writes the steps of `jobmon init` as lines for mongosh, for administrators who review them.

The lines add what is missing, so that people can run a script again. They remove only rights that
older versions granted too widely. With --change-passwords they also change passwords. The lines of
`jobmon init --remove` remove what `jobmon init` created.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from jobmon.actions.records import RECORD_INDEXES
from jobmon.domain import CONTROLS, PAUSED
from jobmon.setup.indexes import CREATED_INDEXES, CreatedIndexes, default_name, index_options
from jobmon.setup.users import MADE_BY, QueueRoles, User
from jobmon.store.indexes import Index
from jobmon.store.mapping import Document
from jobmon.web.revocation import FORMAT, MARKER, REVOKED


def create_index_line(index: Index) -> str:
    """The line that creates an index, for a mongosh that uses the index's database."""
    # In mongosh, `db._queue` and `db.stats` do not name collections.
    target = f"db.getCollection({_js(index.collection.name)})"
    options = index_options(index)
    argument = "" if options == {"name": default_name(index)} else f", {_js(options)}"
    return f"{target}.createIndex({_js(dict(index.keys))}{argument})"


def role_lines(roles: QueueRoles) -> Iterator[str]:
    """Lines that create the roles, or add missing rights and remove superseded rights."""
    admin = _database("admin")
    for name, privileges in roles.privileges.items():
        role = {"role": name, "privileges": privileges, "roles": []}
        yield (
            f"if ({admin}.getRole({_js(name)})) "
            f"{admin}.grantPrivilegesToRole({_js(name)}, {_js(privileges)}); "
            f"else {admin}.createRole({_js(role)});"
        )
        if roles.superseded:
            yield f"{admin}.revokePrivilegesFromRole({_js(name)}, {_js(roles.superseded)});"


def user_lines(
    roles: QueueRoles, users: Iterable[User], *, change_passwords: bool
) -> Iterator[str]:
    """Lines that create users, each with its role, or grant the role to existing users."""
    database = _database(roles.database)
    for user in users:
        name, granted = _js(user.name), _js([user.role(roles)])
        existing = [f"{database}.grantRolesToUser({name}, {granted});"]
        if change_passwords:
            existing.append(f"{database}.changeUserPassword({name}, passwordPrompt());")
        condition = "" if change_passwords else ", if it is a new user"
        yield f"print({_js(f'A password for {user.name}{condition}:')});"
        yield (
            f"if ({database}.getUser({name})) {{ {' '.join(existing)} }} "
            f"else {database}.createUser({{user: {name}, pwd: passwordPrompt(), "
            f"roles: {granted}, customData: {_js(MADE_BY)}}});"
        )


def index_lines(indexes: Iterable[Index], state_db: str, *, unique: bool) -> Iterator[str]:
    """Lines that create indexes, and record in `state_db` that `jobmon init` created them."""
    records = _collection(state_db, CREATED_INDEXES)
    for index in indexes:
        collection = index.collection
        options = index_options(index, unique=unique)
        name = options["name"]
        target = _collection(collection.database.name, collection.name)
        entry = CreatedIndexes.entry(index, name)
        key = {"_id": entry.pop("_id")}
        yield (
            f"if (!{target}.getIndexes().some((index) => index.name === {_js(name)})) {{ "
            f"{target}.createIndex({_js(dict(index.keys))}, {_js(options)}); "
            f"{records}.updateOne({_js(key)}, {{$set: {{...{_js(entry)}, at: new Date()}}}}, "
            "{upsert: true}); }"
        )


def revocation_lines(state_db: str, rollup_db: str) -> Iterator[str]:
    """Lines that create the list of revoked tokens, as `RevokedTokens.create` does."""
    lists, known_lists = (_collection(name, REVOKED) for name in (state_db, rollup_db))
    created = f"{{$setOnInsert: {{format: {FORMAT}, since: new Date()}}}}"
    yield f"{lists}.updateOne({_js({'_id': MARKER})}, {created}, {{upsert: true}});"
    seen = {"$set": {"format": FORMAT}}
    yield f"{known_lists}.updateOne({_js({'_id': state_db})}, {_js(seen)}, {{upsert: true}});"


def action_lines(roles: QueueRoles) -> Iterator[str]:
    """Lines that create the indexes on the records of actions, and the list of paused types."""
    actions = roles.actions
    if actions is None:
        return
    if actions.may_pause:
        controls = _collection(roles.database, CONTROLS)
        key, created = {"_id": PAUSED}, {"$setOnInsert": {"types": list[str]()}}
        yield f"{controls}.updateOne({_js(key)}, {_js(created)}, {{upsert: true}});"
    if roles.own is not None:
        for name, keys, options in RECORD_INDEXES:
            target = _collection(roles.own.state, name)
            with_name = {"name": "_".join(f"{field}_{order}" for field, order in keys), **options}
            yield f"{target}.createIndex({_js(dict(keys))}, {_js(with_name)});"


def collection_line(database: str, name: str) -> str:
    """A line that creates an empty collection if it does not exist."""
    target = _database(database)
    return (
        f"if (!{target}.getCollectionNames().includes({_js(name)})) "
        f"{target}.createCollection({_js(name)});"
    )


def replica_set_line(config: Document) -> str:
    return f"rs.initiate({_js(config)});"


def removal_lines(
    roles: QueueRoles, users: Iterable[Document], entries: Iterable[Document], state_db: str
) -> Iterator[str]:
    """Lines that remove the users, roles and indexes that `jobmon init` created."""
    admin, database = _database("admin"), _database(roles.database)
    for user in users:
        yield f"{database}.dropUser({_js(user['user'])});"
    for name in roles.names:
        yield f"if ({admin}.getRole({_js(name)})) {admin}.dropRole({_js(name)});"
    records = _collection(state_db, CREATED_INDEXES)
    for entry in entries:
        target = _collection(entry["database"], entry["collection"])
        yield f"{target}.dropIndex({_js(entry['name'])});"
        yield f"{records}.deleteOne({_js({'_id': entry['_id']})});"


def _database(name: str) -> str:
    return f"db.getSiblingDB({_js(name)})"


def _collection(database: str, name: str) -> str:
    return f"{_database(database)}.getCollection({_js(name)})"


def _js(value: Any) -> str:
    """A value as JavaScript; any name in it is quoted, so that it is safe to paste."""
    return json.dumps(value)
