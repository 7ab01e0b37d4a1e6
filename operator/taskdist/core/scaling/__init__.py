"""How many agents each pool should have."""
