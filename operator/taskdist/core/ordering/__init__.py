"""The order of waiting Tasks: fair sharing, lines of like Tasks, dependencies, parking under limits."""
