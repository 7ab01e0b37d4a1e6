"""Array Tasks, pure: sets of indexes, sizes of chunks, and the account of which items have ended how.

An array Task stands for many items. It is handed out in parts, each of which is to the core and to the lease protocol a
Task like any other; its status lives within the status of its array. Nothing here knows of leases, agents or writes.
"""
