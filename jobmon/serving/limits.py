"""The bounds of a gunicorn worker: how long it waits for clients, and how many bytes it keeps."""

# To receive a whole request: from the start of the connection or, if it was kept alive, from the
# first byte of the request.
REQUEST_TIMEOUT_S = 5
STALLED_TIMEOUT_S = 20  # until a client accepts more of an answer
LINGER_S = 2  # until a client closes the connection after the last answer
STOP_IDLE_S = 2  # a stopping worker closes connections that are idle for longer
STOP_ACCEPT_S = 0.3  # a stopping worker accepts connections for this time

MAX_HEAD_BYTES = 32 * 1_024  # of a request: its first line and its headers
MAX_RECEIVED_BYTES = 16 * 1_024 * 1_024  # of all unfinished requests of a worker
MAX_UNSENT_BYTES = 64 * 1_024 * 1_024  # of all answers of a worker that clients have not read
MAX_LINGER_BYTES = 1_024 * 1_024  # that a client still sends after the last answer
MAX_STREAM_BYTES = 64 * 1_024  # with more unsent bytes, the thread that writes an answer waits
# Small, to notice progress early: the kernel reports free space once a third is free.
SEND_BUFFER_BYTES = 256 * 1_024
RECEIVE_BYTES = 64 * 1_024  # at most, in one call of `recv`
MAX_JOINED_BYTES = 64 * 1_024  # of a part of an answer that is copied to be sent with the head
SPARE_DESCRIPTORS = 256  # that clients' connections leave for the database, files and threads
REPORT_EVERY_S = 10
NOTIFY_EVERY_S = 1  # the master ends a worker that does not notify it for 30 seconds
EXPIRE_EVERY_S = 0.05  # how often a worker closes connections that have waited too long
