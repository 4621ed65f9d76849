"""Finds the innermost function of the application in the text of a stack.

Understands the stacks of Node.js, Python, the JVM and .NET, and skips frames of libraries.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from jobmon.diagnosis.message_pattern import mask_ids

MAX_FRAME_LENGTH = 200
_MAX_LINE_LENGTH = 400
_PATH_PARTS = 3  # the parts of a path that are kept: the file's name and the last two folders

TRACEBACK = "Traceback (most recent call last):"
_STACK_LINE = re.compile(
    rf"^(?:[ |+\-]*(?:File \"|(?:Exception Group )?{re.escape(TRACEBACK)})"
    r"|[ \t]+at \S|at \S+ ?\(|Caused by: )",
    re.MULTILINE,
)
_CAUSE = re.compile(r"^Caused by: ", re.MULTILINE)
_PYTHON_FRAME = re.compile(r"[ |+\-]*File \"([^\"]{1,300})\", line \d+(?:, in (.{1,100}))?")
# Node.js: `at async Mailer.send (/app/mailer.js:3:14)`, `at /app/mailer.js:3:14`.
_NODE_FRAME = re.compile(
    r"\s*at (?:async )?(?:([^()]{1,150}) )?\(?([^()]{1,250}?)(?::\d+){1,2}\)?\s*"
)
# The JVM: `at app//com.shop.Mailer.send(Mailer.java:12)`.
_JVM_FRAME = re.compile(
    r"\s*at (?:[\w.@\-]{0,80}/){0,2}([\w.$<>]{1,250})\(([^():]{1,100})(?::\d+)?\)\s*"
)
_DOTNET_FRAME = re.compile(
    r"\s*at ([\w.`<>+\[\],|]{1,250})\([^()]{0,300}\)(?: in (.{1,250}):line \d+)?\s*"
)
# `index 0` is in `at async Promise.all (index 0)` of Node.js.
_LIBRARY_PATHS = re.compile(
    r"node_modules|^node:|^internal/|^native$|^<|/site-packages/|/dist-packages/|[\\/]lib[\\/]python"
    r"|[\\/]python3?\d*[\\/]lib[\\/]|^eval at|^index \d",
    re.IGNORECASE,
)
_LIBRARY_NAMES = re.compile(
    r"(?:javax?|jdk|sunw?|com\.sun|kotlinx?|scala|groovy|clojure|akka|reactor|rx|io\.(?:netty|reactivex"
    r"|micrometer|quarkus)|org\.(?:springframework|apache|bson|hibernate|jobrunr|junit|slf4j"
    r"|eclipse|jboss|postgresql|mongodb)|com\.(?:mongodb|fasterxml|zaxxer|mysql|google|amazonaws)"
    r"|okhttp3|retrofit2|System|Microsoft|MongoDB|Hangfire|Newtonsoft|Npgsql|Polly)\."
)
_ALIAS = re.compile(r" \[as [^\]]{0,80}\]")


@lru_cache(512)
def find_own_frame(stack: str) -> str | None:
    """Function and file of the innermost frame that is not in a library, without line numbers.

    None if there is none, or if the text is not a stack. At most 200 characters.

    >>> find_own_frame("Error: boom\\n    at Mailer.send (/app/mailer.js:3:14)")
    'Mailer.send (/app/mailer.js)'
    """
    frames = list(_iter_python_frames(stack)) if 'File "' in stack else []
    # Python prints the innermost call last, other languages print it first.
    frame = frames[-1] if frames else _find_first_frame(stack)
    return frame[:MAX_FRAME_LENGTH] if frame else None


def find_stack(text: str) -> int | None:
    """The index at which a stack begins in a text of several lines; None if there is none."""
    match = _STACK_LINE.search(text) if "\n" in text else None
    return match.start() if match else None


def find_python_error(stack: str) -> str:
    """The line that names the error after the last frame of a traceback; empty without one."""
    last = max(stack.rfind('  File "'), stack.rfind(TRACEBACK))
    lines = stack[last:].splitlines()[1:] if last >= 0 else []
    return next((line for line in lines if line.strip() and not line.startswith((" ", "\t"))), "")


def _find_first_frame(stack: str) -> str | None:
    """The first frame of the application, in the last cause that has one.

    The JVM prints the root cause last.
    """
    frames = (next(_iter_other_frames(part), None) for part in reversed(_CAUSE.split(stack)))
    return next(filter(None, frames), None)


def _iter_lines(stack: str) -> Iterator[str]:
    for line in stack.splitlines():
        yield line[:_MAX_LINE_LENGTH]


def _iter_python_frames(stack: str) -> Iterator[str]:
    for line in _iter_lines(stack):
        match = _PYTHON_FRAME.match(line)
        if match and not _LIBRARY_PATHS.search(match[1]):
            yield _format_frame(match[2], match[1])


def _iter_other_frames(stack: str) -> Iterator[str]:
    for line in _iter_lines(stack):
        if " at " not in line and "\tat " not in line and not line.startswith("at "):
            continue
        match = _JVM_FRAME.fullmatch(line) or _DOTNET_FRAME.fullmatch(line)
        if match:
            if not _LIBRARY_NAMES.match(match[1]):
                yield _format_frame(match[1], match[2])
        elif (match := _NODE_FRAME.fullmatch(line)) and _is_own_file(match[2]):
            yield _format_frame(_ALIAS.sub("", match[1] or ""), match[2])


def _is_own_file(file: str) -> bool:
    """Whether a file is in no library, and has a folder: files inside old Node.js have none."""
    return ("/" in file or "\\" in file) and not _LIBRARY_PATHS.search(file)


def _shorten_path(file: str) -> str:
    """The end of a path, so that errors of two releases with different folders are in one group."""
    return "/".join(re.split(r"[\\/]", file)[-_PATH_PARTS:])


def _format_frame(function: str | None, file: str | None) -> str:
    path = mask_ids(_shorten_path(file.removeprefix("file://"))) if file else ""
    name = mask_ids(function.strip()) if function else ""
    return f"{name} ({path})" if name and path else name or path
