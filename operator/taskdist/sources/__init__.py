"""The process `taskdist sources`: it makes Tasks of what comes in from elsewhere, or at set times.

Owns running the TaskSources of the served namespaces, each as a task of its own, and their status. What a message says
of its Task, and when a run is due, is `intake`'s to say; what becomes of the Task the operator's.
"""
