"""The agent's end of the lease protocol. `AgentEnd` is all of it that others need, with the values in `work`."""

from taskdist.protocol.agent.agent_end import AgentEnd

__all__ = ["AgentEnd"]
