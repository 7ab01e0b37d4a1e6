"""The public message format: `link.proto`, and what protoc makes of it. Nothing here is written by hand but the proto.

`python -m taskdist.link.generate` makes the modules anew; with `--check` it tells whether they match.
"""

SESSION_METHOD = "/taskdist.link.v1.Link/Session"
MAX_MESSAGE_BYTES = 256 * 1024  # both directions; a payload or result of 64 KiB with room for all else
