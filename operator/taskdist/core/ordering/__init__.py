"""Which Task is next: fair sharing between queues and tenants, lines of like Tasks, dependencies, what is parked."""
