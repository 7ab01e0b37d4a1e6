"""Forecasts: the position of a waiting Task and its expected start."""
