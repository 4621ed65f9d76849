"""Finds the line of each key in a TOML text, so that a mistake is reported with its line."""

import tomllib
from collections import Counter

KeyPath = tuple[str | int, ...]


def find_lines(text: str) -> dict[KeyPath, int]:
    """The line of each key, by its path. An element of an array has its index in the path.

    The text must be valid TOML. 'a = 1\\n[b]\\nc = [{d = 2}]' has the path ("b", "c", 0, "d") on
    line 3.
    """
    return _Scanner(text).scan()


def find_line(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """The line of a path; if the text lacks it, the line of the nearest key that contains it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    """Scans a valid TOML text from its beginning to its end, and notes the line of each key."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._lines: dict[KeyPath, int] = {}
        self._tables: Counter[KeyPath] = Counter()  # elements so far, by the path of their array

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip_space(newlines=True)
        while self._position < len(self._text):
            if self._take("[["):
                table = self._resolve(self._read_key())
                self._tables[table] += 1
                table = (*table, self._tables[table] - 1)
                self._record_line(table)
                self._position = self._text.index("]]", self._position) + 2
            elif self._take("["):
                table = self._resolve(self._read_key())
                self._record_line(table)
                self._position = self._text.index("]", self._position) + 1
            else:
                self._read_pair(table)
            self._skip_space(newlines=True)
        return self._lines

    def _resolve(self, key: KeyPath) -> KeyPath:
        """The path of a table. A table inside an array of tables belongs to its newest element."""
        path: KeyPath = ()
        for part in key:
            path = (*path, part)
            if self._tables[path] and path != key:
                path = (*path, self._tables[path] - 1)
        return path

    def _record_line(self, path: KeyPath) -> None:
        line = self._text.count("\n", 0, self._position) + 1
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _take(self, token: str) -> bool:
        if self._text.startswith(token, self._position):
            self._position += len(token)
            return True
        return False

    def _skip_space(self, *, newlines: bool) -> None:
        while self._position < len(self._text):
            char = self._text[self._position]
            if char == "#":
                end = self._text.find("\n", self._position)
                self._position = len(self._text) if end < 0 else end
            elif char in " \t\r" or (newlines and char == "\n"):
                self._position += 1
            else:
                return

    def _read_key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip_space(newlines=False)
            if self._text[self._position] in "\"'":
                parts.append(self._read_string())
            else:
                start = self._position
                while self._text[self._position].isalnum() or self._text[self._position] in "_-":
                    self._position += 1
                parts.append(self._text[start : self._position])
            self._skip_space(newlines=False)
            if not self._take("."):
                return tuple(parts)

    def _read_pair(self, table: KeyPath) -> None:
        self._skip_space(newlines=False)
        start = self._position
        path = (*table, *self._read_key())
        end, self._position = self._position, start
        self._record_line(path)
        self._position = self._text.index("=", end) + 1
        self._skip_space(newlines=False)
        self._read_value(path)

    def _read_value(self, path: KeyPath) -> None:
        if self._text[self._position] in "\"'":
            self._read_string()
        elif self._take("{"):
            self._skip_space(newlines=True)
            while not self._take("}"):
                self._read_pair(path)
                self._skip_space(newlines=True)
                self._take(",")
                self._skip_space(newlines=True)
        elif self._take("["):
            self._skip_space(newlines=True)
            index = 0
            while not self._take("]"):
                self._record_line((*path, index))
                self._read_value((*path, index))
                index += 1
                self._skip_space(newlines=True)
                self._take(",")
                self._skip_space(newlines=True)
        else:  # a number, a boolean or a date
            while self._position < len(self._text) and self._text[self._position] not in ",]}\n#":
                self._position += 1

    def _read_string(self) -> str:
        quote = self._text[self._position]
        is_long = self._text.startswith(quote * 3, self._position)
        delimiter = quote * 3 if is_long else quote
        start = self._position = self._position + len(delimiter)
        while not self._text.startswith(delimiter, self._position):
            self._position += 2 if quote == '"' and self._text[self._position] == "\\" else 1
        content = self._text[start : self._position]
        self._position += len(delimiter)
        while is_long and self._take(quote):  # quotes before the delimiter belong to the content
            pass
        if is_long or quote == "'" or "\\" not in content:
            return content
        decoded: str = tomllib.loads(f'text = "{content}"')["text"]
        return decoded
