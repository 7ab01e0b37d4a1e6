"""The HTTP door: Tasks in, results out, for whoever speaks HTTP and no Kubernetes.

A process of its own. It writes with the caller's own token, so that the API server judges each write as it judges
kubectl's, its policies included. It reads from one watch that all callers share, and asks the API server first whether
the caller could have read the same. Owns no state that a restart could lose; refuses to know any rule of the core.
"""
