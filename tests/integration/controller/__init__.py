"""The whole path on real parts. A package, so that the operator and the node go when its last test has run: the other
tests have nodes of their own."""
