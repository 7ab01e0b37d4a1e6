"""Which agent takes a Task: strategies, and agents that are held for Tasks that need much room."""
