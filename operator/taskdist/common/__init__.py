"""Small parts that more than one room needs, and that belong to none of them.

What stands here is one rule each: how long to wait before another try, which clock bounds leases. It knows nothing of
Tasks, Kubernetes or agents, and imports nothing but the standard library, as agents load it too.
"""
