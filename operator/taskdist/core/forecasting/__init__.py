"""When a waiting Task is expected to start, and how many go before it."""
