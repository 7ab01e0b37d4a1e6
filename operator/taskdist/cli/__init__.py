"""The command `taskdist` and the kubectl plugin `kubectl task`: what a person types, and what they read.

Owns options, output and exit codes. Refuses to hold rules: why a Task waits is asked of the same engine that the
operator runs, and what is valid is asked of the API server. Starting up imports little; each command imports what it
needs.
"""
