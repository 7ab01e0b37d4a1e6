"""A real control plane on this machine, and a node that runs pods as processes.

Owns: finding or building the control plane's binaries, starting and stopping etcd, kube-apiserver and
kube-controller-manager on loopback, and giving pods life without containers. It is a tool for the demo and the
tests. It knows nothing of Tasks, queues or agents, and nothing in the operator may depend on it.
"""
