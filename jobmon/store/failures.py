"""Classifies and describes database errors, and names the codes that jobmon handles."""

from enum import Enum

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    ExecutionTimeout,
    OperationFailure,
    ProtocolError,
    PyMongoError,
)

# The server's codes that jobmon handles one by one.
UNAUTHORIZED, AUTHENTICATION_FAILED, ATLAS_ERROR = 13, 18, 8_000
BAD_VALUE, INDEX_NOT_FOUND, DUPLICATE_KEY = 2, 27, 11_000
ALREADY_INITIALIZED, NOT_YET_INITIALIZED, NOT_A_REPLICA_SET = 23, 94, 40_573
DOCUMENT_TOO_LARGE = (10_334, 17_419, 17_420)  # the last two: for an update and an upsert
# ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken
STREAM_LOST = (286, 280, 260)


class Failure(Enum):
    """A failure that the deployment causes: the same query may succeed later."""

    UNREACHABLE = "unreachable"
    """No server is reachable, or the queried server is stopping, overloaded or not primary."""
    INTERRUPTED = "interrupted"
    """The server ended the query, for example by a kill, a dropped index, a lock or a full disk."""
    TOO_SLOW = "too slow"
    """The query reached its time limit."""
    TOO_LARGE = "too large"
    """The query needs more memory than the server allows."""
    REFUSED = "refused"
    """The server knows no such user or password, or the user lacks a right."""


# By the categories of MongoDB's src/mongo/base/error_codes.yml; other codes have the same effect.
_CODES: dict[Failure, tuple[int, ...]] = {
    Failure.UNREACHABLE: (
        *(6, 7, 89, 141, 202, 230, 231, 317, 384, 407, 9001, 56846),  # network between servers
        *(91, 333, 372, 11600),  # ShutdownError
        *(189, 10058, 10107, 11602, 13435, 13436),  # NotPrimaryError
        *(70, 71, 74, 94, 133, 199, 216, 303),  # a shard or a member that is not there (yet)
        *(433, 449, 450, 462),  # SystemOverloadedError
    ),
    Failure.INTERRUPTED: (
        *(24, 279, 281, 282, 355, 453, 11601, 46841, 91331, 10045600),  # Interruption
        *(90, 194, 310, 312),  # CancellationError
        *(43, 96, 136, 143, 175, 237, 314),  # CursorInvalidatedError; a cursor in use
        *(26, 27, 215, 221, 361, 4938500),  # collection or index dropped under the query
        *(239, 246, 250, 272),  # SnapshotError
        *(150, 249, 343, 9996, 13388),  # StaleShardVersionError
        *(46, 107, 112, 117, 134, 208, 211, 259, 267, 338, 12586, 12587),  # locks, conflicts
        *(206, 225, 251, 261, 365, 402, 406, 412),  # sessions; RetriableError
        *(38, 39, 176, 264, 288, 301, 14031),  # disk and files
    ),
    Failure.TOO_SLOW: (50, 262, 290),  # ExceededTimeLimitError
    Failure.TOO_LARGE: (146, 292, 16819, 16820, 16945),  # the last three: before MongoDB 4.4
    Failure.REFUSED: (
        *(11, UNAUTHORIZED, AUTHENTICATION_FAILED, 31, 33, 214, 334, 337, 391, 392, 404),
        ATLAS_ERROR,
    ),
}
_BY_CODE = {code: failure for failure, codes in _CODES.items() for code in codes}
# Labels that a server or the driver gives to a temporary error.
_TEMPORARY_LABELS = (
    "RetryableError",
    "SystemOverloadedError",
    "TransientTransactionError",
    "RetryableWriteError",
    "ResumableChangeStreamError",
)


def classify_failure(error: BaseException) -> Failure | None:
    """The kind of failure; None if jobmon's own query or code is at fault."""
    match error:
        case ExecutionTimeout():
            return Failure.TOO_SLOW
        case CursorNotFound():
            return Failure.INTERRUPTED
        case OperationFailure():
            failure = _BY_CODE.get(error.code or 0)
            if failure is None and any(map(error.has_error_label, _TEMPORARY_LABELS)):
                return Failure.INTERRUPTED
            return failure
        # The configuration was checked at the start: a later fault is the deployment's.
        case ConnectionFailure() | ProtocolError() | ConfigurationError():
            return Failure.UNREACHABLE
        case _:
            return None


def is_unauthorized(error: BaseException) -> bool:
    """Whether the user lacks the right to this query; for Atlas also whether sign-in failed."""
    return isinstance(error, OperationFailure) and error.code in (UNAUTHORIZED, ATLAS_ERROR)


def has_only_duplicates(error: BulkWriteError) -> bool:
    """Whether the error reports only documents that exist already."""
    codes = {write_error["code"] for write_error in error.details["writeErrors"]}
    return codes == {DUPLICATE_KEY} and not error.details.get("writeConcernErrors")


def name_error(error: OperationFailure) -> str:
    """The server's name for an error, such as `Unauthorized`, or its code."""
    return str((error.details or {}).get("codeName", error.code))


def describe_error(error: PyMongoError) -> str:
    """A database error in one line. A server's error is only named: its text may quote data."""
    if isinstance(error, OperationFailure):
        return f"{type(error).__name__} {name_error(error)}"
    return f"{type(error).__name__}: {str(error).split(', Timeout:')[0]}"
