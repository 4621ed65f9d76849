"""Send requests of many clients to a running jobmon, and count the answers.

    make run                                            # in another terminal
    .venv/bin/python bench/clients.py --token ADMIN-TOKEN

Prints answers by status, answers a second and latencies. Exits with 1 unless all answers are 200.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

ROUTES = (
    "/admin/jobs/stats",
    "/admin/jobs/queue",
    "/admin/jobs/queue?status=succeeded&type=email.send",
    "/admin/jobs/queue?page=3&per_page=100",
    "/jobs",
    "/readyz",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--token", required=True)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--keep-alive", action="store_true", help="one connection a client")
    arguments = parser.parse_args()
    address = urlsplit(arguments.url).netloc
    headers = {"Authorization": f"Bearer {arguments.token}"}
    answers: Counter[str] = Counter()
    latencies_ms: list[float] = []
    end_at = time.monotonic() + arguments.seconds

    def send_requests(first_index: int) -> None:
        index = first_index
        connection = HTTPConnection(address, timeout=30)
        while time.monotonic() < end_at:
            started = time.perf_counter()
            try:
                connection.request("GET", ROUTES[index % len(ROUTES)], headers=headers)
                response = connection.getresponse()
                response.read()
                answers[str(response.status)] += 1
                latencies_ms.append((time.perf_counter() - started) * 1_000)
            except (OSError, HTTPException) as error:
                answers[repr(error)] += 1
                connection.close()
            if not arguments.keep_alive:
                connection.close()
            index += 1

    threads = [
        threading.Thread(target=send_requests, args=[index]) for index in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latencies_ms.sort()
    print(f"{arguments.clients} clients, {arguments.seconds:g} s: {dict(answers)}")
    print(f"{len(latencies_ms) / arguments.seconds:.0f} answers a second")
    for percent in (50, 95, 99, 100) if latencies_ms else ():
        position = min(len(latencies_ms) * percent // 100, len(latencies_ms) - 1)
        print(f"p{percent} {latencies_ms[position]:.0f} ms")
    return 0 if set(answers) == {"200"} else 1


if __name__ == "__main__":
    sys.exit(main())
