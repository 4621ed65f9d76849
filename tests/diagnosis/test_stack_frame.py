"""The application's frame in a stack: catches a group that is named after a library, and a group
for each release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.diagnosis.stack_frame import MAX_FRAME_LENGTH, find_own_frame

NODE = """MongoServerError: E11000 duplicate key error collection: shop.users
    at InsertOneOperation.execute (/srv/app/node_modules/.pnpm/mongodb@6.1.0/lib/insert.js:48:19)
    at new Promise (<anonymous>)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)
    at async Promise.all (index 0)
    at async Users.create [as save] (file:///srv/app/releases/20261126/dist/users.mjs:12:3)
    at async Worker.run (/srv/app/worker.js:1:1)"""
OLD_NODE = """Error: Request failed with status code 502
    at createError (/srv/node_modules/axios/lib/core/createError.js:16:15)
    at IncomingMessage.emit (events.js:203:15)
    at process._tickCallback (internal/process/next_tick.js:63:19)"""
WINDOWS = """AxiosError: socket hang up
    at request (C:\\shop\\node_modules\\axios\\index.cjs:825:14)
    at C:\\shop\\pay.js:3:2"""
PYTHON = """Traceback (most recent call last):
  File "/usr/local/lib/python3.11/site-packages/celery/app/trace.py", line 564, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/app/tasks.py", line 12, in charge
    gateway.post(card)
  File "/app/gateway.py", line 31, in Gateway.post
    return requests.post(url)
  File "/app/.venv/lib/python3.11/site-packages/requests/api.py", line 59, in post
    return request("post", url)
  File "/usr/lib/python3.11/http/client.py", line 300, in begin
    version, status, reason = self._read_status()
ConnectionError: refused"""
JVM = """java.lang.IllegalStateException: Order 12 is paid
\tat java.base/java.util.Optional.orElseThrow(Optional.java:403)
\tat org.springframework.aop.Proxy.invoke(Proxy.java:12)
\tat app//com.acme.OrderJob.lambda$run$0(OrderJob.java:42)
\tat com.acme.OrderJob.run(OrderJob.java:30)
Caused by: java.io.IOException: closed
\t... 3 more"""
DOTNET = """System.InvalidOperationException: Sequence contains no elements
   at System.Linq.Enumerable.First[TSource](IEnumerable`1 source)
   at Shop.Mailer.Send(String to, Int32 id) in /src/Shop/Mailer.cs:line 42
   at Hangfire.Server.CoreBackgroundJobPerformer.Perform()"""
ONLY_LIBRARIES = """Error: boom
    at emit (node:events:518:28)
    at Object.send (/app/node_modules/mailer/index.js:1:1)"""


@pytest.mark.parametrize(
    ("stack", "frame"),
    [
        (NODE, "Users.create (<value>/dist/users.mjs)"),
        (OLD_NODE, None),
        (WINDOWS, "C:/shop/pay.js"),
        (PYTHON, "Gateway.post (/app/gateway.py)"),
        (JVM, "com.acme.OrderJob.lambda$run$<value> (OrderJob.java)"),
        (DOTNET, "Shop.Mailer.Send (src/Shop/Mailer.cs)"),
        (ONLY_LIBRARIES, None),
        ("no stack at all (really)", None),
        ("", None),
    ],
)
def test_find_own_frame_skips_libraries(stack: str, frame: str | None) -> None:
    assert find_own_frame(stack) == frame


def test_find_own_frame_does_not_depend_on_line_numbers_or_release_folders() -> None:
    """Catches a new group for each version of a file."""
    moved = NODE.replace(":12:3", ":240:17").replace("20261126", "20261127")
    assert find_own_frame(moved) == find_own_frame(NODE)


def test_find_own_frame_accepts_windows_line_ends() -> None:
    assert find_own_frame(NODE.replace("\n", "\r\n")) == find_own_frame(NODE)


@given(
    st.lists(
        st.sampled_from(
            ["\n", "    at ", "at ", "(", ")", '  File "', '", line ', ", in ", ":1", ":", "/", "a"]
        )
        | st.text(max_size=5),
        max_size=300,
    ).map("".join)
)
def test_find_own_frame_of_any_text_is_short_or_none(text: str) -> None:
    frame = find_own_frame(text)
    assert frame is None or 0 < len(frame) <= MAX_FRAME_LENGTH
