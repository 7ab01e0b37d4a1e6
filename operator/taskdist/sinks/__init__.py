"""The process that tells the ends of Tasks to receivers, as TaskSinks say: at least once, in order of a key.

- `feed` lists and watches a namespace's ended Tasks; what is told, and in which order, `outgoing` decides.
- `http` is the one place that dials what a namespace's user wrote; `receiver` says what a receiver is.
- `sending` runs one sink, `running` begins it again where it fails, `keeper` has one for each there is.

It writes the status of sinks and nothing else, decides nothing about Tasks, and may be killed at any moment.
"""
