"""Task Distributor: a Kubernetes operator that hands Tasks to long-running agent pods."""

__version__ = "0.1.0"
