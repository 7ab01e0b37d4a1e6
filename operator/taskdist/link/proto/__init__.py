"""The public message format: `link.proto`, and what protoc makes of it. Nothing here is written by hand but the proto.

`python -m taskdist.link.generate` makes the modules anew; with `--check` it tells whether they match.
"""

SESSION_METHOD = "/taskdist.link.v1.Link/Session"
MAX_MESSAGE_BYTES = 1024 * 1024  # both directions: a hello with all it may hold, or a payload of 64 KiB
