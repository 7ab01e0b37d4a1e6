"""The MCP door: what agents that speak the Model Context Protocol ask of queues, pools and the order of Tasks.

`taskdist mcp` serves it on standard input and output, with the rights of whoever starts it, and over HTTP with those of
each caller. It is built on the client and asks the cluster anew for each call: a server that is killed between two
calls loses nothing. Each number that it
tells was measured; what was not is left out, and it is said why. Refuses to know any rule of the core.
"""
