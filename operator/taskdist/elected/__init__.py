"""Processes of which one leads and keeps objects of a kind at work: what sources and sinks have in common.

Knows nothing of what such an object is. The operator itself is another matter: it hands its leadership on without an
end of its process.
"""
