"""The lease protocol: both of its ends as pure state machines. Messages, observations and time go in, actions come out.

`operator/` is the operator's end (`Leader`): it drives the core and decides what is written, sent and believed, and in
which order. `agent/` is the agent's end (`AgentEnd`): it decides what may run on its machine and until when. What both
ends speak, and what others read, stands here. `Rules` is the table of contents: each line that keeps a promise.

Read in this order: `messages` (what the two say to each other), `observations` (what the operator's end is told and
asks for), `operator/leases` (a lease from decision to grant), `agent/fence` (how its work ends in time).

Neither end does I/O, reads a clock or draws random numbers, so that a seeded simulation can drive both through every
failure in virtual time and replay it exactly.
"""
