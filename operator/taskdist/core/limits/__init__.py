"""Quotas, rates, budgets, concurrency and ordering keys: the limits on running Tasks."""
