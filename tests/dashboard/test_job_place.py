"""The links from a job to its list and to the jobs before and after it: catches a link that leaves
the list, and a link that leads an owner to the job of another owner."""

from datetime import timedelta
from typing import Any

from ..conftest import NOW, Api
from ..support.pages import Page
from .conftest import signed_in


def insert_jobs(database: Any) -> None:
    """Insert `j0` (the oldest) to `j4`: `j2` is a job of bob, the others are of ada."""
    database.jobs.insert_many(
        {
            "jobId": f"j{index}",
            "type": "b" if index % 2 else "a&b",
            "status": "dlq",
            "createdBy": "ada" if index != 2 else "bob",
            "createdAt": NOW + timedelta(seconds=index),
        }
        for index in range(5)
    )


def read_links(page: Page) -> dict[str, str | None]:
    """The addresses of the previous job, the next job and the list; None without such a link."""
    by_rel = {str(link["rel"]): link["href"] for link in page.all("a") if "rel" in link}
    (up,) = page.all("a", **{"data-key": "u"})
    return {"prev": by_rel.get("prev"), "next": by_rel.get("next"), "up": up["href"]}


def test_job_of_a_list_links_to_the_jobs_before_and_after_it(real_api: Api, database: Any) -> None:
    insert_jobs(database)
    admin = signed_in(real_api)
    listed = admin.page("/dashboard/jobs?status=dlq&sort=createdAt&per_page=2")
    (first_link, *_) = listed.all("a", **{"class": "row-link mono"})
    query = "?list=all&status=dlq&sort=createdAt"
    assert first_link["href"] == f"/dashboard/jobs/j0{query}"
    up = "/dashboard/jobs?status=dlq&sort=createdAt"
    second_job = f"/dashboard/jobs/j1{query}"
    assert read_links(admin.page(str(first_link["href"]))) == {
        "prev": None,
        "next": second_job,
        "up": up,
    }
    assert read_links(admin.page(f"/dashboard/jobs/j4{query}"))["next"] is None
    by_type = "?list=all&type=a%26b"
    assert read_links(admin.page(f"/dashboard/jobs/j2{by_type}")) == {
        "prev": f"/dashboard/jobs/j4{by_type}",  # this list begins with the newest job
        "next": f"/dashboard/jobs/j0{by_type}",
        "up": "/dashboard/jobs?type=a%26b",
    }
    # The part that an open page requests repeatedly has no links to other jobs.
    assert "j4" not in admin.get(f"/dashboard/jobs/j2{by_type}", part=True).text


def test_links_lead_an_owner_only_to_own_jobs(real_api: Api, database: Any) -> None:
    insert_jobs(database)
    ada = signed_in(real_api, "ada", "user")
    for list_name in ("my", "all"):
        assert read_links(ada.page(f"/dashboard/jobs/j3?list={list_name}")) == {
            "prev": f"/dashboard/jobs/j4?list={list_name}",
            "next": f"/dashboard/jobs/j1?list={list_name}",
            "up": "/dashboard/my",
        }
    links = read_links(signed_in(real_api, "ada", "admin").page("/dashboard/jobs/j3?list=my"))
    assert links["next"] == "/dashboard/jobs/j1?list=my"


def test_job_without_a_valid_list_has_no_links_to_other_jobs(real_api: Api, database: Any) -> None:
    insert_jobs(database)
    admin = signed_in(real_api)
    valid_page = admin.page("/dashboard/jobs/j3?list=all")
    assert valid_page.all("nav", **{"aria-label": "Jobs of the list"})
    for query in ("", "?status=dlq", "?list=all&sort=odd", "?list=all&job_id=j"):
        page = admin.page(f"/dashboard/jobs/j3{query}")
        assert not page.all("nav", **{"aria-label": "Jobs of the list"}), query
