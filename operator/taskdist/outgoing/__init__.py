"""The ends of Tasks on their way out, as rules without I/O: which are told, as what, in which order, to whom. Pure.

- `ends`: an ended Task as a CloudEvent, and which ones a sink selects.
- `delivery`: at least once, in order of a key: what is sent now, what waits, and up to where all is told.
- `signing`: what a receiver verifies; `addresses`: where nothing may be sent.
"""
