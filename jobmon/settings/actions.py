"""The permissions for actions on jobs, and for mutes of notices."""

JOBS_RETRY = "JOBS_RETRY"
JOBS_CANCEL = "JOBS_CANCEL"
JOBS_EDIT = "JOBS_EDIT"  # times, priorities, and pausing a type
JOBS_DELETE = "JOBS_DELETE"
JOBS_APPROVE = "JOBS_APPROVE"  # approves requests of other people
NOTICES_MUTE = "NOTICES_MUTE"
ACTION_PERMISSIONS = (
    *(JOBS_RETRY, JOBS_CANCEL, JOBS_EDIT, JOBS_DELETE, JOBS_APPROVE),
    NOTICES_MUTE,
)
# The actions that owners may be given for their own jobs.
OWNER_ACTIONS = ("cancel", "retry")
