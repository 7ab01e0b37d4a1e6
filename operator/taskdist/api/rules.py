"""The rules by which the API server itself refuses objects, in CEL, with messages that name the field and the fix.

Owns the rules that a schema's types and bounds cannot say. Rules that compare with the former object stand at the
object's root: on a field, leaving the field out would get round them. For the same reason both sides give an absent
field its meaning (`.?field.orValue(…)`) before they are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taskdist.api.reasons import Phase
from taskdist.api.task import MUTABLE_FIELDS, TaskSpec, TaskStatus
from taskdist.api.tasksink import TARGETS, SinkRetry
from taskdist.api.tasksource import SCHEDULE_PATTERN, SOURCES
from taskdist.api.template import TEMPLATE_PATTERN, TaskTemplate

Rule = dict[str, Any]

MAX_NAME_LENGTH = 50


def rule(expression: str, message: str, field: str = "", *, forbidden: bool = False) -> Rule:
    """Return a rule. `field` is the path that the refusal names; `forbidden` says that no value would do now."""
    where = {"fieldPath": field} if field else {}
    reason = {"reason": "FieldValueForbidden"} if forbidden else {}
    return {"rule": expression, "message": message, **where, **reason}


@dataclass(frozen=True)
class Check:
    """A condition of a rule that is folded from several, and what is said if it does not hold."""

    holds: str
    message: str


def fold(checks: Sequence[Check], unless: str, field: str, *, at_creation: bool = False) -> Rule:
    """Fold many rules into one: the API server pays for each rule on each write. A status write was a fifth slower with
    these checks as rules of their own, and is an eighth slower with them folded.

    `unless` is asked first and says that there is nothing to check. The first check that fails is the one told: a
    list of all that do would be a cost without a bound to CEL. With `at_creation` the checks are of a new object, which
    may then be written as often as one likes without a second look; else they compare with the former one.
    """
    *before, last = checks
    told = "".join(f"!({each.holds}) ? '{each.message}' : " for each in before) + f"'{last.message}'"
    return {
        "rule": f"{unless} || ({' && '.join(each.holds for each in checks)})",
        "messageExpression": told,
        # Said should the other fail.
        "message": f"{field[1:]} holds {'words' if at_creation else 'a change'} not allowed: see kubectl explain",
        "fieldPath": field,
        **({"optionalOldSelf": True} if at_creation else {"reason": "FieldValueForbidden"}),
    }


def task_rules() -> list[Rule]:
    return [
        # What these look at is immutable.
        fold(creation_checks(), "oldSelf.hasValue()", ".spec", at_creation=True),
        # Most writes are of status and leave the spec as it is: one comparison then does.
        fold(spec_checks(), "self.spec in [oldSelf.spec]", ".spec"),
        fold(final_checks(), f"!({_WAS} in {_TERMINAL})", ".status"),
        fold(progress_checks(), "(has(self.status) && self.?status in [oldSelf.?status])", ".status"),
    ]


def queue_rules() -> list[Rule]:
    return [
        _short_name("agents and metrics carry it"),
        rule(
            "self.spec.dispatch != 'Lazy' || self.spec.delivery != 'AtMostOnce'",
            "spec.dispatch Lazy may run a Task twice after a change of leader: set spec.dispatch to Strict, or "
            "spec.delivery to AtLeastOnce",
            ".spec.dispatch",
        ),
        rule(
            "self.spec.holdSeconds >= self.spec.leaseSeconds",
            "spec.holdSeconds must not be less than spec.leaseSeconds, for which an agent may go on unheard: raise "
            "spec.holdSeconds",
            ".spec.holdSeconds",
        ),
        rule(
            "self.spec.retry.initialSeconds <= self.spec.retry.maxSeconds",
            "spec.retry.initialSeconds must not be more than spec.retry.maxSeconds: raise spec.retry.maxSeconds",
            ".spec.retry.initialSeconds",
        ),
        *_overflow_rules(),
    ]


def _overflow_rules() -> list[Rule]:
    spill = f"{_OVERFLOW}.?action.orValue('Reject') == 'Spill'"
    return [
        rule(
            f"!has({_OVERFLOW}) || {_OVERFLOW}.lowWater <= {_OVERFLOW}.highWater",
            "spec.overflow.lowWater must not be more than spec.overflow.highWater: set it to three quarters of that",
            ".spec.overflow.lowWater",
        ),
        rule(
            f"!has({_OVERFLOW}) || ({spill}) == has({_OVERFLOW}.spillTo)",
            "spec.overflow.spillTo goes with spec.overflow.action Spill, and only with that: set both, or neither",
            ".spec.overflow.spillTo",
        ),
        rule(
            f"!has({_OVERFLOW}) || {_OVERFLOW}.?spillTo.orValue('') != self.metadata.name",
            "spec.overflow.spillTo names the queue itself, which is full then: choose another queue",
            ".spec.overflow.spillTo",
        ),
    ]


_OVERFLOW = "self.spec.overflow"


def pool_rules() -> list[Rule]:
    return [
        _short_name("the names of its pods begin with it"),
        rule(
            "!has(self.spec.scaling) || self.spec.scaling.minReplicas <= self.spec.scaling.maxReplicas",
            "spec.scaling.minReplicas must not be more than spec.scaling.maxReplicas: raise spec.scaling.maxReplicas",
            ".spec.scaling.minReplicas",
        ),
        rule(
            "self.spec.wattsIdle <= self.spec.wattsBusy",
            "spec.wattsIdle must not be more than spec.wattsBusy: raise spec.wattsBusy",
            ".spec.wattsIdle",
        ),
        rule(
            "!has(self.spec.scaling) || !has(oldSelf.spec.scaling) || self.spec.replicas == oldSelf.spec.replicas",
            "spec.replicas has no effect while spec.scaling is set: change spec.scaling.minReplicas instead, or remove "
            "spec.scaling",
            ".spec.replicas",
            forbidden=True,
        ),
        rule(
            "self.spec.breaker.openSeconds <= self.spec.breaker.maxOpenSeconds",
            "spec.breaker.openSeconds must not be more than spec.breaker.maxOpenSeconds: raise "
            "spec.breaker.maxOpenSeconds",
            ".spec.breaker.openSeconds",
        ),
    ]


def source_rules() -> list[Rule]:
    there = ", ".join(f"has(self.spec.{name})" for name in SOURCES)
    words = " or ".join(f"spec.{name}" for name in SOURCES)
    return [
        _short_name("the names of its Tasks begin with it"),
        rule(
            f"[{there}].exists_one(each, each)",
            f"spec names no source, or more than one: set {words}, and only that",
            ".spec",
        ),
    ]


def sink_rules() -> list[Rule]:
    there = ", ".join(f"has(self.spec.{name})" for name in TARGETS)
    words = " or ".join(f"spec.{name}" for name in TARGETS)
    return [
        rule(
            f"[{there}].exists_one(each, each)",
            f"spec names no target, or more than one: set {words}, and only that",
            ".spec",
        ),
    ]


def _identity_rule() -> Rule:
    """Return the rule that something names deliveries: Standard Webhooks and CloudEvents do so by themselves."""
    return rule(
        "!has(self.webhook) || self.webhook.format != 'JSON' || !has(self.webhook.signature) "
        "|| has(self.task.identity)",
        "task.identity is missing, which tells one delivery from another: name what does, such as {$.id}, or {hash} "
        "where no two bodies are the same",
        ".task.identity",
    )


def _template_rules() -> list[Rule]:
    """Return the rules on paths in the texts of a template; those of its payload only process and review see."""
    fields = TaskTemplate.model_json_schema(by_alias=True)["properties"]
    plain = [name for name, schema in fields.items() if "string" in str(schema.get("anyOf", schema.get("type")))]
    return [
        rule(
            "!has(self.deadline) || !has(self.deadlineSeconds)",
            "deadline and deadlineSeconds both say the deadline: set one of the two",
            ".deadlineSeconds",
        ),
        *(_path_rule(name) for name in plain),
        rule(
            f"!has(self.labels) || self.labels.all(name, {_TEMPLATE.format('self.labels[name]')})",
            _NO_PATH.format("labels"),
            ".labels",
        ),
    ]


def _path_rule(name: str) -> Rule:
    return rule(f"!has(self.{name}) || {_TEMPLATE.format(f'self.{name}')}", _NO_PATH.format(name), f".{name}")


_TEMPLATE = '{}.matches(r"' + TEMPLATE_PATTERN.replace("{", "{{").replace("}", "}}") + '")'
_NO_PATH = (
    "{} has braces without a path that can be read: write one such as {{$.order.id}}, {{headers.tenant}} or "
    "{{$.tenant?default}}, and a brace itself twice"
)

SASL_WITHOUT_SECRET = "secretName is missing: name a Secret with username and password, or leave sasl out"
DEAD_LETTERS_READ = (
    "deadLetterTopic is one of topics, so that what cannot become a Task would come again and again: name another topic"
)
DEAD_LETTERS_RECEIVED = (
    "deadLetterQueueUrl is the queue itself, so that what cannot become a Task would come again and again: name "
    "another queue"
)
OTHER_REGION = "region is not the one in the queue's address: write that one"
_REGION_IN = "self.queueUrl.matches('^https://sqs[.][a-z0-9-]+[.]amazonaws[.]com(/|[.])')"
_REGION_RULE = rule(
    f"!{_REGION_IN} || self.queueUrl.startsWith('https://sqs.' + self.region + '.')", OTHER_REGION, ".region"
)

# Rules of the models that several kinds share, by class name.
NESTED: dict[str, list[Rule]] = {
    "SelectorRequirement": [
        rule(
            "!(self.operator in ['In', 'NotIn']) || size(self.?values.orValue([])) > 0",
            "values must not be empty with the operators In and NotIn: name the label's values, or use Exists or "
            "DoesNotExist",
            ".values",
        ),
        rule(
            "!(self.operator in ['Exists', 'DoesNotExist']) || size(self.?values.orValue([])) == 0",
            "values must be empty with the operators Exists and DoesNotExist: remove values, or use In or NotIn",
            ".values",
        ),
    ],
    "RouteMatch": [
        rule(
            "!has(self.minSlots) || !has(self.maxSlots) || self.minSlots <= self.maxSlots",
            "minSlots must not be more than maxSlots, or no Task matches: change one of them",
            ".minSlots",
        ),
    ],
    "Route": [
        rule(
            "!(self.steps[0].?afterSeconds.orValue(0.0) > 0.0)",
            "afterSeconds of the first step must be 0, for there is no step before it: leave it out",
            ".steps",
        ),
    ],
    "Budget": [
        rule(
            "self.kind != 'Concurrent' || (has(self.limit) && !has(self.perSecond) && !has(self.burst))",
            "a budget of the kind Concurrent has a limit, and no perSecond or burst: set limit only",
            ".limit",
        ),
        rule(
            "self.kind != 'Rate' || (has(self.perSecond) && has(self.burst) && !has(self.limit))",
            "a budget of the kind Rate has perSecond and burst, and no limit: set these two only",
            ".perSecond",
        ),
    ],
    "TaskTemplate": _template_rules(),
    "TaskSourceSpec": [_identity_rule()],
    "TaskSinkSpec": [_path_rule("key")],
    "SinkRetry": [
        rule(
            # Asked of the default too, an object that is empty yet.
            f"self.?initialSeconds.orValue({SinkRetry().initial_seconds:.1f}) "
            f"<= self.?maxSeconds.orValue({SinkRetry().max_seconds:.1f})",
            "initialSeconds must not be more than maxSeconds: raise maxSeconds",
            ".initialSeconds",
        ),
    ],
    "Signature": [_path_rule("content"), _path_rule("timestamp")],
    "Cron": [
        rule(
            f'self.schedule.matches(r"{SCHEDULE_PATTERN}")',
            "schedule has not the five fields minute, hour, day of the month, month and day of the week: write one "
            "such as 0 3 * * *",
            ".schedule",
        ),
    ],
    "Kafka": [
        rule("!has(self.sasl) || has(self.secretName)", SASL_WITHOUT_SECRET, ".secretName"),
        rule("!(self.deadLetterTopic in self.topics)", DEAD_LETTERS_READ, ".deadLetterTopic"),
    ],
    "SQS": [
        _REGION_RULE,
        rule(
            "!has(self.deadLetterQueueUrl) || self.deadLetterQueueUrl != self.queueUrl",
            DEAD_LETTERS_RECEIVED,
            ".deadLetterQueueUrl",
        ),
    ],
    "KafkaTarget": [rule("!has(self.sasl) || has(self.secretName)", SASL_WITHOUT_SECRET, ".secretName")],
    "SqsTarget": [_REGION_RULE],
    "DependencyStatus": [
        rule(
            "oldSelf.?uid.orValue('') == '' || self.?uid.orValue('') == oldSelf.uid",
            "uid is pinned once it is set: a Task that came later under the same name is not the one depended on",
            ".uid",
            forbidden=True,
        ),
    ],
}


def _short_name(why: str) -> Rule:
    return rule(
        f"size(self.metadata.name) <= {MAX_NAME_LENGTH} && "
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name must be at most {MAX_NAME_LENGTH} of a-z, 0-9 and '-', with no '-' at its ends ({why}): choose "
        "another name",
    )


# What an absent field of a Task's spec means, by the type of the field.
_EMPTY = {"array": "[]", "object": "{}"}
_UNKNOWN = "x-kubernetes-preserve-unknown-fields"


def creation_checks() -> list[Check]:
    """Return what a new Task's spec must fulfil beyond its schema."""
    return [
        Check(
            "(!has(self.spec.notBefore) || !has(self.spec.deadline) || self.spec.notBefore < self.spec.deadline)",
            "spec.notBefore must be before spec.deadline, or the Task could never be in time: change one of them",
        ),
        Check(
            "(!has(self.spec.dependsOn) || !self.spec.dependsOn.exists(each, each.name == self.metadata.name))",
            "spec.dependsOn names the Task itself, so that it could never start: leave it out",
        ),
        Check(
            "(self.spec.?waitForPreferredSeconds.orValue(0.0) == 0.0 || size(self.spec.?preferred.orValue([])) > 0)",
            "spec.waitForPreferredSeconds waits for what spec.preferred names, which is empty: name it, or leave the "
            "wait out",
        ),
        Check(
            "(!has(self.spec.payloadRef) || !has(dyn(self.spec).payload))",
            "spec.payload and spec.payloadRef both say the input: set one of the two",
        ),
        *_array_checks(),
    ]


def _array_checks() -> list[Check]:
    """Return what an array must fulfil beyond its schema. Unknown values can be named by way of `dyn` only."""
    array, items = "self.spec.array", "dyn(self.spec.array).items"
    inline = f"(has({items}) && size({items}) > 0)"
    return [
        Check(
            f"(!has({array}) || has({array}.count) != {inline})",
            "spec.array has neither count nor items, or both: set spec.array.count where only the index differs, else "
            "spec.array.items",
        ),
        Check(
            f"(!has({array}) || !has({array}.completions) || "
            f"{array}.completions <= (has({array}.count) ? {array}.count : size({items})))",
            "spec.array.completions is more than there are items, so that it could never succeed: set at most as many",
        ),
        Check(
            f"(!has({array}) || !{inline} || "
            "(!has(self.spec.payloadRef) && (!has(dyn(self.spec).payload) || size(dyn(self.spec).payload) == 0)))",
            "spec.array.items are the payloads, so that nobody would get spec.payload or spec.payloadRef: leave it "
            "out, or set spec.array.count",
        ),
        Check(
            f"(!has({array}) || !has(self.spec.orderingKey))",
            "spec.orderingKey would have the chunks of an array run one after the other, and lets other Tasks in "
            "between: leave it out, or set spec.array.parallelism to 1",
        ),
    ]


def spec_checks() -> list[Check]:
    """Return what must stay as it is in a Task's spec: all but the fields that are named as mutable."""
    schema = TaskSpec.model_json_schema(by_alias=True)
    fields = schema["properties"]
    fields["array"] = schema["$defs"]["ArraySpec"]  # what it holds decides on how it is compared
    return [
        *(
            Check(
                _same(f"spec.{name}", fields[name]),
                f"spec.{name} cannot be changed after creation: delete the Task and create another",
            )
            for name in fields
            if name not in MUTABLE_FIELDS
        ),
        Check(
            "(!oldSelf.spec.?cancel.orValue(false) || self.spec.?cancel.orValue(false))",
            "spec.cancel cannot be taken back: leave it true, and create another Task to do the work",
        ),
        Check(
            f"({_REDRIVE} == {_REDRIVE_WAS} || ({_REDRIVE} > {_REDRIVE_WAS} && {_WAS} == 'DeadLettered'))",
            "spec.redrive can only be raised, and only while status.phase is DeadLettered: leave it as it is",
        ),
    ]


_REDRIVE, _REDRIVE_WAS = (f"{side}.spec.?redrive.orValue(0)" for side in ("self", "oldSelf"))


def _same(path: str, schema: dict[str, Any]) -> str:
    """Return the condition that a field is as it was, absent ones and empty ones included.

    `a in [b]` says `a == b`, at a cost that CEL's estimate knows to be bounded. Maps of unknown values can be named in
    CEL by way of `dyn` only; they are then compared whole.
    """
    parent, _, name = path.rpartition(".")
    if _UNKNOWN in str(schema):
        new, old = f"dyn(self.{parent})", f"dyn(oldSelf.{parent})"
        return f"(has({new}.{name}) ? has({old}.{name}) && {new}.{name} in [{old}.{name}] : !has({old}.{name}))"
    empty = _EMPTY.get(schema.get("type", ""))
    default = f".orValue({empty})" if empty else ""
    return f"self.{parent}.?{name}{default} in [oldSelf.{parent}.?{name}{default}]"


_PHASE, _WAS = (f"{side}.?status.phase.orValue('Pending')" for side in ("self", "oldSelf"))
_TERMINAL = "[" + ", ".join(f"'{each.value}'" for each in Phase if each.terminal) + "]"
_ATTEMPT, _ATTEMPT_WAS = (f"{side}.?status.attempt.orValue(0)" for side in ("self", "oldSelf"))
_EPOCH, _EPOCH_WAS = (f"{side}.?status.epoch.orValue(0)" for side in ("self", "oldSelf"))
_AGENT, _AGENT_WAS = (f"{side}.?status.agentUid.orValue('')" for side in ("self", "oldSelf"))
_REDRIVES, _REDRIVES_WAS = (f"{side}.?status.redrives.orValue(0)" for side in ("self", "oldSelf"))


def final_checks() -> list[Check]:
    """Return what must stay as it is once a Task has ended. Conditions and records of attempts may be completed."""
    fields = TaskStatus.model_json_schema(by_alias=True)["properties"]
    return [
        Check(
            _final(name, fields[name]),
            f"status.{name} is final once status.phase is Succeeded, Failed or Cancelled: leave it as it is",
        )
        for name in ("phase", "reason", "attempt", "failures", "result", "resultRef", "finishedAt")
    ]


def _final(name: str, schema: dict[str, Any]) -> str:
    """Return the condition that a field of status is as it was, given that the former phase was terminal.

    So there was a status. One that is left out altogether is refused for its phase.
    """
    if name == "result":
        return f"(!has(self.status) || {_same('status.result', schema)})"
    return f"self.?status.{name} in [oldSelf.?status.{name}]"


def progress_checks() -> list[Check]:
    """Return the ways in which a Task's status may go on."""
    return [
        Check(
            f"{_ATTEMPT} >= {_ATTEMPT_WAS}",
            "status.attempt must never decrease: read the Task again and write at least the value it has",
        ),
        Check(
            f"{_EPOCH} >= {_EPOCH_WAS}",
            "status.epoch must never decrease: a newer leader has written this Task, stop writing it",
        ),
        Check(
            f"({_PHASE} != 'Assigned' || {_WAS} == 'Assigned' || {_ATTEMPT} > {_ATTEMPT_WAS})",
            "status.attempt must grow when status.phase becomes Assigned: every lease is an attempt of its own",
        ),
        Check(
            f"({_PHASE} != 'Assigned' || {_WAS} != 'Assigned' || {_ATTEMPT} != {_ATTEMPT_WAS} || "
            f"{_AGENT} in [{_AGENT_WAS}])",
            "status.agentUid cannot change within an attempt: raise status.attempt to assign the Task to another agent",
        ),
        Check(
            f"({_WAS} != 'DeadLettered' || {_PHASE} in ['DeadLettered', 'Pending', 'Cancelled'])",
            "status.phase of a dead letter can only become Pending or Cancelled: redrive it by raising spec.redrive",
        ),
        Check(
            f"({_WAS} != 'DeadLettered' || {_PHASE} != 'Pending' || {_REDRIVES} > {_REDRIVES_WAS})",
            "status.redrives must grow when a dead letter becomes Pending: set it to spec.redrive",
        ),
        Check(
            f"({_REDRIVES} == {_REDRIVES_WAS} || ({_REDRIVES} > {_REDRIVES_WAS} && {_REDRIVES} <= {_REDRIVE}))",
            "status.redrives must never decrease, nor be more than spec.redrive: set it to spec.redrive",
        ),
        *(
            Check(
                f"(oldSelf.?status.{name}.orValue('') == '' || self.?status.{name} in [oldSelf.?status.{name}])",
                f"status.{name} is set once: leave it as it is",
            )
            for name in ("spilledTo", "duplicateOf")
        ),
    ]
