"""The fleet of agents and pods: classes of agents, shapes of Tasks, and their match."""
