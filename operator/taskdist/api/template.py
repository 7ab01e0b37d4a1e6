"""The template of a Task: how a message's parts become the fields of a Task, and the grammar of the words for it.

The grammar is one regular expression, so that the API server (in CEL), the review and the process that fills the
template in all refuse the same. A path is a singular query of RFC 9535 (JSONPath): names and indices, so that it gives
one value or none, in a time that does not depend on what the message holds.
"""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from taskdist.api.meta import ANY_JSON_OBJECT, LabelKey, Model

# What a path starts with: parts of a message.
ROOTS = ("$", "headers", "properties", "key", "id", "time", "text", "base64", "hash")
# Longest template, in characters.
MAX_TEMPLATE = 1024
# Largest body that is looked at, in bytes. A Task's payload holds 64 KiB; a path may pick them out of a larger body.
MAX_BODY_BYTES = 2**20

_NAME = r"[^][\s.{}?'\x22*@$,:()<>|&!=\\]+"
_STEP = rf"(?:\.{_NAME}|\[(?:-?[0-9]{{1,6}}|'[^'{{}}\\]*'|\x22[^\x22{{}}\\]*\x22)\])"
PATH_PATTERN = rf"(?:\$|{'|'.join(ROOTS[1:])}){_STEP}*"
# A path in braces, with what stands for nothing after a question mark.
EXPRESSION_PATTERN = rf"\{{{PATH_PATTERN}(?:\?[^{{}}]*)?\}}"
TEMPLATE_PATTERN = rf"^(?:[^{{}}]|\{{\{{|\}}\}}|{EXPRESSION_PATTERN})*$"

Template = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEMPLATE)]


class TaskTemplate(Model):
    """How a message becomes a Task. A text is taken as it stands but for paths in braces, such as {$.order.id}."""

    queue: Template = Field(description="Name of the TaskQueue, in the same namespace.")
    type: Template = Field(description="What kind of work it is.")
    payload: dict[str, Any] | None = Field(
        default=None,
        description="Input of the handler; in its texts, at any depth, paths are replaced. A text that is one path "
        "alone becomes the value as it is: an object, a number. Absent: the body, which then is a JSON object.",
        json_schema_extra=ANY_JSON_OBJECT,
    )
    priority: Template | None = Field(default=None, description="Its level: Emergency to Background.")
    tenant: Template | None = Field(default=None, description="On whose account it runs.")
    deadline: Template | None = Field(
        default=None, description="When it should have succeeded, as RFC 3339: 2030-01-01T12:00:00Z."
    )
    deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = Field(
        default=None, description="The deadline, as seconds after the message's time (of cron: the scheduled time)."
    )
    not_before: Template | None = Field(default=None, description="It is not started before this time, as RFC 3339.")
    ordering_key: Template | None = Field(
        default=None, description="Of the queue's Tasks with this key, one runs after the other."
    )
    concurrency_key: Template | None = Field(
        default=None, description="Of the queue's Tasks with this key, only so many run at once as the queue says."
    )
    labels: Annotated[dict[LabelKey, Template], Field(max_length=16)] = Field(
        default_factory=dict, description="Labels of the Task."
    )
    identity: Template | None = Field(
        default=None,
        description="What tells one message from another: of two with the same identity one Task is made. Absent: the "
        "id that the source gives messages; {hash}: messages of the same body are one.",
    )
