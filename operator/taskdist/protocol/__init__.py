"""Both ends of the lease protocol as pure state machines: messages, observations and time in, actions out.

The agent's end decides what may run on its machine and until when; the operator's end drives the core and decides
what is written, sent and believed, and in which order. Neither does I/O, reads a clock or draws random numbers, so
that a seeded simulation can drive both through every failure in virtual time and replay it exactly.
"""
