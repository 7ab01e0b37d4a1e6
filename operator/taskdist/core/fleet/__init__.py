"""Which agents may serve which Tasks, and which of them have room."""
