"""The choice of an agent for a Task: strategies, and agents reserved for large Tasks."""
