"""What comes in and becomes a Task, as rules without I/O: templates over messages. Pure.

Owns the meaning of a `TaskTemplate`. All that brings work in (sources, webhooks) and the review of manifests ask here,
so that a mapping is right or wrong by one rule.
"""
