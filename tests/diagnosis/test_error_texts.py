"""Texts of errors: catches a long stack without the frame that raised the error, and a secret that
is cut, so that no pattern recognizes the part that stays."""

from typing import Any

import pytest

from jobmon.diagnosis.error_kinds import classify_error
from jobmon.diagnosis.error_texts import ErrorTexts, prepare_error, prepare_stack
from jobmon.redaction.redactor import Redactor
from jobmon.store.short_errors import GAP, HEAD, TAIL

REDACTOR = Redactor()
SECRET = "hunter2-Zx9"


def prepare(error: Any) -> ErrorTexts:
    texts = prepare_error(error, "failed", REDACTOR)
    assert texts is not None
    return texts


def make_python_stack(frames: int, end: str = "shop.errors.CardDeclined: card 7 declined") -> str:
    libraries = "".join(
        f'  File "/usr/lib/python3.12/site-packages/celery/app/trace.py", line {number}, in call\n'
        f"    return self.run(*args, number={number}, **kwargs)\n"
        "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        for number in range(frames)
    )
    return (
        "Traceback (most recent call last):\n"
        f'  File "/app/main.py", line 1, in start\n    start()\n{libraries}'
        f'  File "/app/shop/pay.py", line 31, in charge\n    raise CardDeclined(card)\n{end}'
    )


def make_java_stack(causes: int) -> str:
    def make_part(number: int) -> str:
        frames = "".join(
            f"\tat org.springframework.aop.Proxy{line}.invoke(Proxy.java:{line})\n"
            for line in range(8)
        )
        return (
            f"com.shop.Failure{number}Exception: step {number} failed\n{frames}"
            f"\tat com.shop.Step{number}.run(Step{number}.java:12)\n\t... 30 more\n"
        )

    return "Caused by: ".join(make_part(number) for number in range(causes)) + (
        "Caused by: java.net.SocketTimeoutException: Read timed out\n"
        "\tat java.base/java.net.Socket.read(Socket.java:1)\n"
        "\tat com.shop.Gateway.post(Gateway.java:44)\n\t... 99 more"
    )


def make_node_stack(message: str, frames: int) -> str:
    calls = "".join(f"\n    at step{number} (/app/flow.js:{number}:1)" for number in range(frames))
    return f"{message}\n    at Cart.total (/app/cart.js:3:14){calls}"


PYTHON, JAVA = make_python_stack(280), make_java_stack(90)
NODE = make_node_stack("RangeError: too deep", 2_000)
LONG_MESSAGE = make_node_stack("E" * 60_000, 3)


@pytest.mark.parametrize(
    ("error", "code", "pattern", "frame"),
    [
        (PYTHON, "shop.errors.CardDeclined", "card <value> declined", "charge (app/shop/pay.py)"),
        (
            f"Order failed\n{PYTHON}",
            "shop.errors.CardDeclined",
            "Order failed",
            "charge (app/shop/pay.py)",
        ),
        (
            {"code": "CardDeclined", "message": "card 7 declined", "stack": PYTHON},
            "CardDeclined",
            "card <value> declined",
            "charge (app/shop/pay.py)",
        ),
        (
            {
                "stack": make_python_stack(
                    280, "app.IntegrityError: duplicate key\nDETAIL: x\n\n[SQL: y]"
                )
            },
            "app.IntegrityError",
            "duplicate key",
            "charge (app/shop/pay.py)",
        ),
        # Code and message are unknown if the message is longer than the part that is kept.
        (make_python_stack(280, f"ValueError: {'a b ' * 9_000}"), None, "", "start (/app/main.py)"),
        (
            JAVA,
            "com.shop.Failure0Exception",
            "step <value> failed",
            "com.shop.Gateway.post (Gateway.java)",
        ),
        (NODE, "RangeError", "too deep", "Cart.total (/app/cart.js)"),
        ({"message": "no", "stack": LONG_MESSAGE}, None, "no", "Cart.total (/app/cart.js)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_long_stack_is_classified_by_its_beginning_and_its_end(
    error: Any, code: str | None, pattern: str, frame: str
) -> None:
    assert len(str(error)) > 30_000
    kind = classify_error(prepare(error))
    assert (kind.code, kind.pattern, kind.frame) == (code, pattern, frame)


@pytest.mark.parametrize("stack", [PYTHON, JAVA, NODE, LONG_MESSAGE])
def test_a_long_stack_is_shortened_to_complete_lines(stack: str) -> None:
    shortened = prepare({"message": "x", "stack": stack}).stack
    assert shortened is not None
    assert len(shortened) <= HEAD + len(GAP) + TAIL
    assert shortened.endswith(stack[-100:])
    lines = stack.splitlines()
    new_lines = [line for line in shortened.splitlines() if line not in lines]
    assert len(new_lines) == 1
    assert new_lines[0].endswith("…")


@pytest.mark.parametrize(
    "error",
    [
        PYTHON,
        f"Order failed\n{PYTHON}",
        {"stack": JAVA},
        make_node_stack("TypeError: a is b", 2),
        "x",
    ],
    ids=lambda value: str(value)[:30],
)
def test_prepared_texts_have_the_kind_of_the_original_error(error: Any) -> None:
    prepared = prepare(error)
    assert classify_error(prepared) == classify_error(error)
    assert prepare(prepared._asdict()) == prepared


FRAME = "    at Cart.total (/app/cart.js:3:14)\n"
KEY = "-----BEGIN PRIVATE KEY-----\n" + f"{SECRET}MIIEvQIBADANBg\n" * 300
CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize(
    ("secret", "part"),
    [
        (f"amqp://worker:{SECRET}{SECRET}@host ", SECRET),
        (f"ghp_{'Zx9' * 12} ", "Zx9"),
        (f"{CARD} ", "4111"),
        (f'{{"password": "{SECRET} {SECRET} {SECRET}"}}', SECRET),
        (f"<password>{SECRET} {SECRET} {SECRET}</password> ", SECRET),
    ],
)
def test_no_part_of_a_secret_remains_at_the_end_of_a_cut_line(secret: str, part: str) -> None:
    """The line is cut once at each position in the secret."""
    for length in range(1_000 - len(secret), 1_000):
        texts = prepare(("x " * 500)[-length:] + secret + "y " * 600)
        assert part not in str(texts.message)


@pytest.mark.parametrize(
    ("secret", "part"),
    [
        (f"token = '{SECRET} {SECRET} {SECRET}'\n", SECRET),
        (f"amqp://worker:{SECRET}{SECRET}@host\n", SECRET),
        (f"<password>{SECRET} {SECRET}</password>\n", SECRET),
        (f"{CARD}\n", "4111"),
        (KEY + "-----END PRIVATE KEY-----\n", SECRET),
    ],
)
def test_no_part_of_a_secret_remains_around_the_gap(secret: str, part: str) -> None:
    """The stack is cut at positions in the secret: in a short secret at each position."""
    step = 1 if len(secret) < 100 else 97
    for length in range(-len(secret), 1, step):
        before, after = FRAME * 200, FRAME * 400
        for stack in (
            before[: HEAD + length] + "\n" + secret + after,
            before + secret + after[: TAIL - length - len(secret)],
        ):
            shortened = prepare({"message": "x", "stack": stack}).stack
            assert part not in prepare_stack(str(shortened), REDACTOR)


def test_a_redacted_stack_keeps_the_frames_after_the_gap() -> None:
    """Catches a cut private key, whose end is missing, that hides the frames after the gap."""
    stack = f"Error: bad key\n{KEY[:3_900]}\n{FRAME * 400}    at last (/app/last.js:1:1)"
    shown = prepare_stack(str(prepare({"message": "x", "stack": stack}).stack), REDACTOR)
    assert SECRET not in shown
    assert shown.endswith("at last (/app/last.js:1:1)")


def test_text_without_spaces_keeps_its_beginning() -> None:
    texts = prepare('{"error":"' + "x," * 600 + '"}')
    assert str(texts.message).startswith('{"error":"x,x,')
    assert prepare("密码，" * 500).message == "密码，" * 333 + " …"


def test_a_stack_in_the_message_is_separated_from_it() -> None:
    text = make_node_stack("TypeError: a is\nno function", 2)
    assert prepare(text) == ErrorTexts(None, "TypeError: a is\nno function", text)
    assert prepare({"message": text, "stack": "s"}).stack == "s"
    assert prepare({"stack": text}).message == "TypeError: a is"
    assert prepare("first line\nsecond line") == ErrorTexts(None, "first line\nsecond line", None)
