"""Why a Task waits and what would unblock it, in words and commands."""
