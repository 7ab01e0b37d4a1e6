"""The MCP door: tools for agents that speak the Model Context Protocol, over queues, pools and the order of Tasks.

`taskdist mcp` serves it on standard input and output, with the rights of whoever starts it, and over HTTP with those of
each caller. It is built on the client and asks the cluster anew for each call: a server that is killed between two
calls loses nothing. Each figure that it tells was measured; what was not is left out, and it is said why. Starts that
lie ahead are called expected, and are the scheduler's own. Refuses to know any rule of the core.
"""
