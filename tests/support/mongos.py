"""A simulated mongos: a proxy in front of a real server that answers as a mongos would.

The wheel of `jobmon.demo.mongod` contains no mongos. According to MongoDB's documentation, a mongos
differs from a server as follows: `hello` names no replica set, a plan is inside a list of shards, a
cursor belongs to the router that opened it, and commands of replica sets do not exist.
"""

import socket
import struct
import threading
from contextlib import suppress
from typing import Any, NamedTuple, Self

import bson
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS

from jobmon.demo.mongod import free_port

Document = dict[str, Any]
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
# Fields of `hello` that a mongos does not have.
_REPLICA_SET_FIELDS = ("hosts", "setName", "setVersion", "primary", "me", "electionId", "secondary")
_MISSING_FIELDS = (*_REPLICA_SET_FIELDS, "lastWrite", "topologyVersion", "isreplicaset")


class _Header(NamedTuple):
    """The header of a message: its length in bytes with the header, two ids, and its kind."""

    length: int
    request_id: int
    response_to: int
    op_code: int


class Router:
    """A simulated mongos in front of the server at `target` (host:port).

    `commands` are all commands that clients sent.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.address = f"127.0.0.1:{free_port()}"
        self._listener = socket.create_server(("127.0.0.1", int(self.address.rpartition(":")[2])))
        self._connections: list[socket.socket] = []
        self._cursors: set[int] = set()  # the ids of the cursors that this router opened
        self.commands: list[Document] = []
        self.refused_databases: set[str] = set()  # databases for which the user has no rights

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._connections += [client, server]
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ConnectionError):
            while True:
                header, body = _read_message(client)
                command = _parse(header, body)
                name = next(iter(command))
                self.commands.append(command)
                refusal = self._refuse(name, command)
                if refusal is not None:
                    client.sendall(_make_message(header.request_id, refusal))
                    continue
                server.sendall(_pack(header, body))
                header, body = _read_message(server)
                answer = self._rewrite(name, _parse(header, body))
                is_reply = header.op_code == _OP_REPLY
                client.sendall(_make_message(header.response_to, answer, is_reply=is_reply))

    def _refuse(self, name: str, command: Document) -> Document | None:
        if name.startswith("replSet"):
            return {"ok": 0.0, "errmsg": f"no such command: '{name}'", "code": 59}
        if name == "getMore" and command["getMore"] not in self._cursors:
            return {"ok": 0.0, "errmsg": "cursor id not found", "code": 43}
        if command.get("$db") in self.refused_databases:
            return {"ok": 0.0, "errmsg": "not authorized", "code": 13, "codeName": "Unauthorized"}
        return None

    def _rewrite(self, name: str, answer: Document) -> Document:
        if name.lower() in ("hello", "ismaster"):
            fields = {key: value for key, value in answer.items() if key not in _MISSING_FIELDS}
            return fields | {"msg": "isdbgrid"}
        if name == "explain" and "queryPlanner" in answer:
            shards = [{"shardName": "shard-a", **answer["queryPlanner"]}]
            plan = {"stage": "SINGLE_SHARD", "shards": shards}
            return answer | {"queryPlanner": {"mongosPlannerVersion": 1, "winningPlan": plan}}
        if cursor_id := answer.get("cursor", {}).get("id"):
            self._cursors.add(cursor_id)
        return answer


def _read_message(source: socket.socket) -> tuple[_Header, bytes]:
    """The header and the body of the next message."""

    def read(length: int) -> bytes:
        data = b""
        while len(data) < length:
            if not (part := source.recv(length - len(data))):
                raise ConnectionError
            data += part
        return data

    header = _Header(*struct.unpack("<iiii", read(16)))
    return header, read(header.length - 16)


def _pack(header: _Header, body: bytes) -> bytes:
    return struct.pack("<iiii", *header) + body


def _parse(header: _Header, body: bytes) -> Document:
    """The first document of a message; this skips other documents, such as those to insert."""
    if header.op_code == _OP_MSG:  # flags (4 bytes) and the kind of the first section (1 byte)
        start = 5
    elif header.op_code == _OP_QUERY:  # flags, the collection's name up to a 0, and two numbers
        start = body.index(b"\0", 4) + 9
    else:  # OP_REPLY: flags, a cursor id (8 bytes) and two numbers
        start = 20
    length = struct.unpack_from("<i", body, start)[0]
    return dict(
        bson.decode(
            body[start : start + length], DEFAULT_RAW_BSON_OPTIONS.with_options(document_class=dict)
        )
    )


def _make_message(response_to: int, answer: Document, *, is_reply: bool = False) -> bytes:
    """An OP_MSG with this answer, or an OP_REPLY if `is_reply`."""
    document = bson.encode(answer)
    if is_reply:
        body = struct.pack("<iqii", 8, 0, 0, 1) + document
    else:
        body = struct.pack("<iB", 0, 0) + document
    op_code = _OP_REPLY if is_reply else _OP_MSG
    return _pack(_Header(16 + len(body), 0, response_to, op_code), body)
