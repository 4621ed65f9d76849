"""The permissions for actions on jobs and for mutes, and the actions that owners may have."""

JOBS_RETRY = "JOBS_RETRY"  # also to release an expired lease
JOBS_CANCEL = "JOBS_CANCEL"
JOBS_EDIT = "JOBS_EDIT"  # due times, priorities, disabled jobs, pauses of types, and undo
JOBS_DELETE = "JOBS_DELETE"
JOBS_APPROVE = "JOBS_APPROVE"  # to approve what another person requested
NOTICES_MUTE = "NOTICES_MUTE"
ACTION_PERMISSIONS = (JOBS_RETRY, JOBS_CANCEL, JOBS_EDIT, JOBS_DELETE, JOBS_APPROVE, NOTICES_MUTE)
# The actions on their own jobs that JOBMON_OWNER_ACTIONS can allow to owners.
OWNER_ACTIONS = ("cancel", "retry")
