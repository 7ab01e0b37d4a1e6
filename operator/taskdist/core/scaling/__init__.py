"""Pool sizes: the number of agents that waiting and coming work needs."""
