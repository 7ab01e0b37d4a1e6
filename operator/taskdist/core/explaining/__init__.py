"""Explanations: the reason for which a Task waits, and the command that would unblock it."""
