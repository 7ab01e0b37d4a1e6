"""The state machine: events change where Tasks stand, and `decide` says what follows."""
