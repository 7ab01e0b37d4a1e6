"""Objects in a store that speaks S3: payloads and results that are too large for a resource.

Agents and clients put and fetch them; the operator only passes references on, and imports nothing of this room. Import
from its modules: a worker process needs the settings, and not what speaks to a store.
"""
