"""Numbers without a source of chance are those of the generator that they are said to be of."""

from taskdist.core.primitives.hashing import GAMMA, scatter


def test_scatter_steps_as_splitmix64_does() -> None:
    """The first numbers of its reference implementation (Vigna, splitmix64.c) from the seed 1234567."""
    assert [scatter((1234567 + step * GAMMA) % 2**64) for step in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
