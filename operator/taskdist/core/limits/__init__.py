"""What may run at once: quotas, rates, budgets, concurrency and ordering keys."""
