"""The page for a notice: a list of jobs, the page of a type, or the table of types."""

from jobmon.diagnosis.notices import Notice
from jobmon.page_addresses import instant, query, type_address
from jobmon.store.filter import JobFilter
from jobmon.store.labels import can_filter_by

_LAST_HOUR = {"range": "1h"}


def find_notice_address(notice: Notice) -> str:
    """The address of the page for a notice; empty if there is none."""
    # Failure rates are of the last hour: the page of a type and the table of types must show it.
    if notice.type_name:
        return type_address(notice.type_name, _LAST_HOUR)
    if notice.jobs is not None:
        return _list_address(notice.jobs)
    if notice.types is not None:
        return f"/dashboard{query(**_LAST_HOUR, only=notice.types.value)}#types-title"
    return ""


def _list_address(jobs: JobFilter) -> str:
    """The address of the list of these jobs; empty if a type's name is too long for a filter."""
    if not all(can_filter_by(job_type) for job_type in jobs.types):
        return ""
    parameters = query(
        status=jobs.statuses,
        type=jobs.types,
        condition=jobs.condition.value if jobs.condition else "",
        finished_from=instant(jobs.finished_from),
        sort=jobs.order_field if jobs.condition else "",  # longest in this condition first
    )
    return f"/dashboard/jobs{parameters}"
