"""The bounds of a gunicorn worker: how long it waits for clients, and how many bytes it keeps."""

REQUEST_TIMEOUT_S = 5  # from the connection, or a kept-alive one's first byte, to the last byte
STALLED_TIMEOUT_S = 20  # for a client to take more of an answer
LINGER_S = 2  # for a client to close after the end of the last answer
STOP_IDLE_S = 2  # for a kept-alive connection while the worker stops
STOP_ACCEPT_S = 0.3  # for connections that are established while the worker stops

MAX_HEAD_BYTES = 32 * 1_024
MAX_RECEIVED_BYTES = 16 * 1_024 * 1_024  # of all unfinished requests of a worker
MAX_UNSENT_BYTES = 64 * 1_024 * 1_024  # of all answers of a worker that clients have not read
MAX_LINGER_BYTES = 1_024 * 1_024
MAX_STREAM_BYTES = 64 * 1_024  # unsent: a thread that streams an export waits above this
# Small enough to notice progress: the kernel reports space once a third is free.
SEND_BUFFER_BYTES = 256 * 1_024
RECEIVE_BYTES = 64 * 1_024
SPARE_DESCRIPTORS = 256  # for the database, files and threads
REPORT_EVERY_S = 10
