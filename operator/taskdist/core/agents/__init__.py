"""Agents: their offers, their free slots, their performance and circuit breakers."""
