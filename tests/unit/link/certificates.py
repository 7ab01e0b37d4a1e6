"""A certificate source for tests: one authority, made at once."""

import time

from taskdist.link.ca import Authority, AuthoritySettings, Pair, rotate

LOOPBACK = ("localhost", "127.0.0.1")


class Certificates:
    def __init__(self) -> None:
        self.state: Authority = rotate(None, LOOPBACK, time.time(), AuthoritySettings())

    def serving(self) -> Pair:
        return self.state.serving

    def bundle(self) -> bytes:
        return self.state.bundle
