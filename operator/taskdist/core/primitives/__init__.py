"""Data structures and statistics that know nothing of Tasks or agents."""
