"""The link: the gRPC stream between an agent and the operator.

`proto/` is the public format and `codec` turns it into the protocol's messages and back; both are all that an agent
needs. `server` carries sessions over TLS, `auth` says who is at the other end, `ca` makes and replaces the
certificates. The link moves messages and vouches for identities; what a message means is the protocol's business.

Nothing is imported here, so that an agent does not load the server.
"""
