"""Both ends of the lease protocol as pure state machines: messages, observations and time in, actions out.

`operator/` is the operator's end (`Leader`): it drives the core and decides what is written, sent and believed, and in
which order. `agent/` is the agent's end (`AgentEnd`): it decides what may run on its machine and until when. What both
speak, and what others read, stands here. `Rules` names the lines that keep the promises.

Neither end does I/O, reads a clock or draws random numbers, so that a seeded simulation can drive both through every
failure in virtual time and replay it exactly.
"""
