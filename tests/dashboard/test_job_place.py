"""The links from a job to its list and to the jobs next to it: catches a link that leaves the list,
and a link that leads an owner to the job of somebody else."""

from datetime import timedelta
from typing import Any

from ..conftest import NOW, Api
from ..support.pages import Page, Viewer
from .conftest import signed_in


def fill(database: Any) -> None:
    database.jobs.insert_many(
        {
            "jobId": f"j{number}",
            "type": "b" if number % 2 else "a&b",
            "status": "dlq",
            "createdBy": "ada" if number != 2 else "bob",
            "createdAt": NOW + timedelta(seconds=number),
        }
        for number in range(5)
    )


def steps(page: Page) -> dict[str, str | None]:
    """The addresses of the previous and the next job, and of the list."""
    found = {str(link["rel"]): link["href"] for link in page.all("a") if "rel" in link}
    (up,) = page.all("a", **{"data-key": "u"})
    return {"prev": found.get("prev"), "next": found.get("next"), "up": up["href"]}


def test_job_of_a_list_leads_to_the_jobs_next_to_it(real_api: Api, database: Any) -> None:
    fill(database)
    admin = signed_in(real_api)
    listed = admin.page("/dashboard/jobs?status=dlq&sort=createdAt&per_page=2")
    (first, *_) = listed.all("a", **{"class": "row-link mono"})
    query = "?list=all&status=dlq&sort=createdAt"
    assert first["href"] == f"/dashboard/jobs/j0{query}"
    up = "/dashboard/jobs?status=dlq&sort=createdAt"
    after = f"/dashboard/jobs/j1{query}"
    assert steps(admin.page(str(first["href"]))) == {"prev": None, "next": after, "up": up}
    assert steps(admin.page(f"/dashboard/jobs/j4{query}"))["next"] is None
    by_type = "?list=all&type=a%26b"
    assert steps(admin.page(f"/dashboard/jobs/j2{by_type}")) == {
        "prev": f"/dashboard/jobs/j4{by_type}",  # the newest first
        "next": f"/dashboard/jobs/j0{by_type}",
        "up": "/dashboard/jobs?type=a%26b",
    }
    # The part of the page is read again and again, so it has none of these queries.
    assert "j4" not in admin.get(f"/dashboard/jobs/j2{by_type}", part=True).text


def test_owner_is_led_through_own_jobs_only(real_api: Api, database: Any) -> None:
    fill(database)
    ada = signed_in(real_api, "ada", "user")
    for list_name in ("my", "all"):
        found = steps(ada.page(f"/dashboard/jobs/j3?list={list_name}"))
        assert found == {
            "prev": f"/dashboard/jobs/j4?list={list_name}",
            "next": f"/dashboard/jobs/j1?list={list_name}",
            "up": "/dashboard/my",
        }
    root = signed_in(real_api, "ada", "admin")
    assert steps(root.page("/dashboard/jobs/j3?list=my"))["next"] == "/dashboard/jobs/j1?list=my"


def test_unknown_list_shows_no_steps_and_no_error(admin: Viewer, watched: Any) -> None:
    fill(watched)
    for query in ("", "?status=dlq", "?list=all&sort=odd", "?list=all&job_id=j"):
        page = admin.page(f"/dashboard/jobs/j3{query}")
        assert not page.all("nav", **{"aria-label": "Jobs of the list"}), query
