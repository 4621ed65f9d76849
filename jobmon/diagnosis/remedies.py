"""What to do about what is missing, in the same words on the pages and in `jobmon check`."""

START_A_COLLECTOR = "Start `jobmon collector`, or set JOBMON_COLLECTOR=true for the web service."
CREATE_INDEXES = "Create them with `jobmon init`, as a user who may do so."
READ_THE_LOG = "The collector's log has the reason."
