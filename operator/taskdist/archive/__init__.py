"""The archive: copies ended Tasks to PostgreSQL, and tells the operator up to which version it has them.

- `rows` is pure: what of a Task is kept, and in which columns.
- `progress` is pure: which word may be given to the operator, so that it is true at any moment.
- `feed` lists and watches Tasks into a bounded buffer; `database` is the only place that writes SQL for Tasks, `schema`
  the one that changes tables; `word` writes the ConfigMap that the operator reads.
- `archiver` runs them together; `history` is what is asked of the tables.

Needs the extra `taskdist[archive]`. It writes nothing on Tasks, decides nothing, and may be killed at any moment.
"""
