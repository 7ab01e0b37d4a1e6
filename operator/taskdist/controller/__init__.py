"""The operator process: informers feed the lease protocol and the core, and their decisions become effects.

Two event loops in two threads. The main one carries Tasks: informers, leader election, the dispatch loop, the link.
The other carries kopf and what it reconciles: the pods and status of AgentPools, the status of TaskQueues.
Both talk through one typed bridge. No policy lives here: what should happen is decided by the core.
"""
