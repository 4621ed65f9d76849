"""What to do about what jobmon lacks, in the same words on the pages and in `jobmon check`."""

START_A_COLLECTOR = "Start a collector beside the web service, or set JOBMON_COLLECTOR=true for it."
CREATE_INDEXES = "Create them with `jobmon init`, as a user who may."
READ_THE_LOG = "The collector's log names the reason."
