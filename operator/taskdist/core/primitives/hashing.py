"""Pseudo-random numbers that are hashes of names: the same events give the same decisions.

Owns how a choice "at random" is made. Python's own `hash` would not do: it differs from process to process.
"""

from hashlib import blake2b
from typing import Final

_MASK: Final = (1 << 64) - 1
GAMMA: Final = 0x9E3779B97F4A7C15
"""From one number of SplitMix64 to the next: 2^64 over the golden ratio, made odd."""


def hashed(*words: str) -> int:
    """Return 64 evenly spread bits that follow from these words."""
    return int.from_bytes(blake2b("\0".join(words).encode("utf-8", "replace"), digest_size=8).digest(), "big")


def points(word: str, number: int) -> list[int]:
    """Return `number` hashes of the word, of 64 bits each; `number` is a multiple of eight."""
    found: list[int] = []
    for part in range(number // 8):
        digest = blake2b(f"{part}\0{word}".encode("utf-8", "replace"), digest_size=64).digest()
        found += [int.from_bytes(digest[at : at + 8], "big") for at in range(0, 64, 8)]
    return found


def scatter(number: int) -> int:
    """Return the next number of a sequence without a pattern: the mixing step of SplitMix64 (Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", OOPSLA 2014)."""
    number = (number + GAMMA) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
