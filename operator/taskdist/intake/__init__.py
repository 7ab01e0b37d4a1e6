"""Rules by which what comes in becomes a Task: templates over messages. Pure, without I/O.

Owns the meaning of a `TaskTemplate`. All that brings work in (sources, webhooks) and the review of manifests ask here,
so that a mapping is right or wrong by one rule.
"""
