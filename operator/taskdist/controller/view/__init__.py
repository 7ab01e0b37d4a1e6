"""The leader's view: a read-only HTTPS endpoint that answers from the leader's memory, so that a look costs no list.

Owns who may ask, what an answer costs the dispatch loop at most, and the HTTP around it. The shapes are `api.view`'s;
why a Task waits and when it starts are the core's words. Refuses to change anything.
"""
