"""Find words and names that are hard to read: `make lint` refuses them.

It reads the tracked files whose suffix is in SUFFIXES, all or only those in the arguments.
In Python files it checks names, comments, docstrings and texts; in other files each line. The style
guide is in CONTRIBUTING.md.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".yml", ".toml", ".mjs", ".sh", ".txt", ""}
SUFFIXES |= {".yaml", ".tpl", ".conf", ".service", ".example"}
# This file, texts by other authors, and a test that quotes other programs.
SKIPPED = {
    ".ci/words.py",
    "LICENSE",
    ".github/CODE_OF_CONDUCT.md",
    "tests/adapters/test_samples.py",
}

# The tokens with text; Python 3.11 has no FSTRING_MIDDLE.
TEXTS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)}

# Patterns of refused words, each with better words.
PHRASES = {
    r"\b(?:told|tells?|untold|telling)\b": "shows, reports, returns, has",
    r"\bsays?\b|\bsaid\b|\bsaying\b": "is, sets, states, documents, means",
    r"\b(?:come|comes|came|coming) by\b": "obtained",
    r"\bstood\b|\bstands?\b(?! for\b)": "is, was",
    r"\bhappened\b": "activity, events, occurred",
    r"\bat hand\b": "available, cached",
    r"\bnone that (?:is|are)\b": "rewrite the sentence",
    r"\bbeside\b": "besides, next to, in addition to",
    r"\bask(?:s|ed|ing)? for\b": "requested, queried",
    r"\bgo(?:es|ne|ing)? through\b": "scanned, processed",
    r"\bgiv(?:e|es|en|ing) up\b|\bgave up\b": "dead-lettered, stopped retrying",
    r"\blets? go\b|\bletting go\b": "released, evicted",
    r"\bchairs?\b": "waiting slots",
    r"\bthe rest of it\b": "name it",
    r"\bnothing that is not\b|\bwhat is not\b": "rewrite the sentence",
    r"\bmake-believe\b": "in-memory",
    r"\bas (?:it is|they are|it was)\b": "unchanged",
    r"\banew\b": "again, reset",
    r"\bwhoever\b|\bwhatever it is\b": "the caller, any",
    r"\bof it\b(?= (?:is|are|was)\b)": "rewrite the sentence",
    r"\bfor want of\b|\bin vain\b|\bin all\b": "without, in total",
    r"\bthere were none\b|\bno more than that\b": "rewrite the sentence",
}
# Patterns of refused parts of names, each with advice.
NAME_PARTS = {
    r"told|tells?|untold|said|says|stood|happened|chairs?|beside|theirs|whoever": "a plain word",
    r"as_it_is|as_they_are|at_hand|given_up|lets?_go|asked_for|of_watched": "a plain word",
}
# A function's name is a noun or begins with a verb. It must not begin with one of these words.
PREPOSITIONS = re.compile(
    r"_?(?:of|in|by|at|with|without|under|beside|where|short|many|so|after|before|above|below|between"
    r"|for|on|until|since|towards|from|as|not|beyond)(?:_\w+)?"
)
# Python's convention for constructors is `from_…` and `for_…`; libraries call hooks `on_…`.
ALLOWED_FUNCTIONS = re.compile(r"from_\w+|for_\w+|on_\w+")


def find_python_words(source: str) -> Iterator[tuple[int, str, str]]:
    """The line number, the refused words and the advice of each match in a Python file."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in TEXTS:
            for offset, line in enumerate(token.string.split("\n")):
                yield from ((token.start[0] + offset, *phrase) for phrase in find_phrases(line))
        elif token.type == tokenize.NAME:
            for pattern, advice in NAME_PARTS.items():
                if re.search(rf"(?:^|_)(?:{pattern})(?:_|$)", token.string.lower()):
                    yield token.start[0], token.string, advice
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if PREPOSITIONS.fullmatch(name) and not ALLOWED_FUNCTIONS.fullmatch(name):
                    yield node.lineno, f"def {name}", "a verb and an object"


def find_phrases(line: str) -> Iterator[tuple[str, str]]:
    """The refused words in a line of text, each with its advice."""
    for pattern, advice in PHRASES.items():
        for match in re.finditer(pattern, line, re.IGNORECASE):
            yield match.group(), advice


def find_words(path: Path) -> Iterator[tuple[int, str, str]]:
    """The line number, the refused words and the advice of each match in a file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from find_python_words(source)
        return
    for line_number, line in enumerate(source.split("\n"), start=1):
        yield from ((line_number, *phrase) for phrase in find_phrases(line))


def main(arguments: list[str]) -> int:
    """Print the refused words; return 1 if there are any."""
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--", *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    total = 0
    for name in tracked:
        path = ROOT / name
        if not name or name in SKIPPED or path.suffix not in SUFFIXES or not path.is_file():
            continue
        try:
            words = sorted(set(find_words(path)))
        except UnicodeDecodeError:
            continue
        for line, text, advice in words:
            print(f"{name}:{line}: “{text}”: {advice}")
        total += len(words)
    print(f"{total} words to replace" if total else "No word to replace.")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
