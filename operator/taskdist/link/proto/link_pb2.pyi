from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FailureReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_REASON_UNSPECIFIED: _ClassVar[FailureReason]
    FAILURE_REASON_HANDLER_ERROR: _ClassVar[FailureReason]
    FAILURE_REASON_HANDLER_CRASHED: _ClassVar[FailureReason]
    FAILURE_REASON_UNKNOWN_TYPE: _ClassVar[FailureReason]
    FAILURE_REASON_INVALID_PAYLOAD: _ClassVar[FailureReason]
    FAILURE_REASON_RESULT_TOO_LARGE: _ClassVar[FailureReason]
    FAILURE_REASON_RESULT_REFUSED: _ClassVar[FailureReason]
    FAILURE_REASON_EXECUTION_TIMED_OUT: _ClassVar[FailureReason]
    FAILURE_REASON_PROGRESS_TIMED_OUT: _ClassVar[FailureReason]
    FAILURE_REASON_THROTTLED: _ClassVar[FailureReason]
    FAILURE_REASON_OBJECT_UNAVAILABLE: _ClassVar[FailureReason]
    FAILURE_REASON_OBJECT_NOT_FOUND: _ClassVar[FailureReason]
    FAILURE_REASON_OBJECT_MISMATCH: _ClassVar[FailureReason]
    FAILURE_REASON_OBJECT_REFUSED: _ClassVar[FailureReason]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_ACCEPTED: _ClassVar[Verdict]
    VERDICT_ALREADY_FINAL: _ClassVar[Verdict]
    VERDICT_STALE: _ClassVar[Verdict]
    VERDICT_GONE: _ClassVar[Verdict]
FAILURE_REASON_UNSPECIFIED: FailureReason
FAILURE_REASON_HANDLER_ERROR: FailureReason
FAILURE_REASON_HANDLER_CRASHED: FailureReason
FAILURE_REASON_UNKNOWN_TYPE: FailureReason
FAILURE_REASON_INVALID_PAYLOAD: FailureReason
FAILURE_REASON_RESULT_TOO_LARGE: FailureReason
FAILURE_REASON_RESULT_REFUSED: FailureReason
FAILURE_REASON_EXECUTION_TIMED_OUT: FailureReason
FAILURE_REASON_PROGRESS_TIMED_OUT: FailureReason
FAILURE_REASON_THROTTLED: FailureReason
FAILURE_REASON_OBJECT_UNAVAILABLE: FailureReason
FAILURE_REASON_OBJECT_NOT_FOUND: FailureReason
FAILURE_REASON_OBJECT_MISMATCH: FailureReason
FAILURE_REASON_OBJECT_REFUSED: FailureReason
VERDICT_UNSPECIFIED: Verdict
VERDICT_ACCEPTED: Verdict
VERDICT_ALREADY_FINAL: Verdict
VERDICT_STALE: Verdict
VERDICT_GONE: Verdict

class LeaseName(_message.Message):
    __slots__ = ("task_uid", "attempt", "epoch")
    TASK_UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task_uid: str
    attempt: int
    epoch: int
    def __init__(self, task_uid: _Optional[str] = ..., attempt: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class FromAgent(_message.Message):
    __slots__ = ("hello", "ping", "started", "progress", "result", "failure", "stopped", "draining", "capacity", "reauthenticate")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    REAUTHENTICATE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ping: Ping
    started: Started
    progress: Progress
    result: Result
    failure: Failure
    stopped: Stopped
    draining: Draining
    capacity: Capacity
    reauthenticate: Reauthenticate
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., stopped: _Optional[_Union[Stopped, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., reauthenticate: _Optional[_Union[Reauthenticate, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "instance_id", "slots", "boot", "resources", "skills", "types", "labels", "fenced", "draining", "leases", "software", "held", "started", "oldest_version", "highest_epoch", "leadership", "objects", "arrays")
    class ResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    SKILLS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEADERSHIP_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    instance_id: str
    slots: int
    boot: float
    resources: _containers.ScalarMap[str, int]
    skills: _containers.RepeatedScalarFieldContainer[str]
    types: TypeList
    labels: _containers.ScalarMap[str, str]
    fenced: bool
    draining: bool
    leases: _containers.RepeatedCompositeFieldContainer[LeaseName]
    software: str
    held: _containers.RepeatedCompositeFieldContainer[HeldLease]
    started: float
    oldest_version: int
    highest_epoch: int
    leadership: str
    objects: bool
    arrays: bool
    def __init__(self, protocol_version: _Optional[int] = ..., instance_id: _Optional[str] = ..., slots: _Optional[int] = ..., boot: _Optional[float] = ..., resources: _Optional[_Mapping[str, int]] = ..., skills: _Optional[_Iterable[str]] = ..., types: _Optional[_Union[TypeList, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., fenced: _Optional[bool] = ..., draining: _Optional[bool] = ..., leases: _Optional[_Iterable[_Union[LeaseName, _Mapping]]] = ..., software: _Optional[str] = ..., held: _Optional[_Iterable[_Union[HeldLease, _Mapping]]] = ..., started: _Optional[float] = ..., oldest_version: _Optional[int] = ..., highest_epoch: _Optional[int] = ..., leadership: _Optional[str] = ..., objects: _Optional[bool] = ..., arrays: _Optional[bool] = ...) -> None: ...

class ObjectRef(_message.Message):
    __slots__ = ("uri", "size", "sha256", "content_type")
    URI_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    uri: str
    size: int
    sha256: str
    content_type: str
    def __init__(self, uri: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ..., content_type: _Optional[str] = ...) -> None: ...

class HeldLease(_message.Message):
    __slots__ = ("lease", "namespace", "name", "lease_seconds", "hold_seconds", "execution_seconds", "progress_seconds")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HOLD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_SECONDS_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    namespace: str
    name: str
    lease_seconds: float
    hold_seconds: float
    execution_seconds: float
    progress_seconds: float
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., lease_seconds: _Optional[float] = ..., hold_seconds: _Optional[float] = ..., execution_seconds: _Optional[float] = ..., progress_seconds: _Optional[float] = ...) -> None: ...

class TypeList(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("boot",)
    BOOT_FIELD_NUMBER: _ClassVar[int]
    boot: float
    def __init__(self, boot: _Optional[float] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("lease", "since_start")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SINCE_START_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    since_start: float
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., since_start: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("lease", "fraction", "message")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    fraction: float
    message: str
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., fraction: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("lease", "body", "since_start", "used", "ref")
    class UsedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LEASE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SINCE_START_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    body: bytes
    since_start: float
    used: _containers.ScalarMap[str, int]
    ref: ObjectRef
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., body: _Optional[bytes] = ..., since_start: _Optional[float] = ..., used: _Optional[_Mapping[str, int]] = ..., ref: _Optional[_Union[ObjectRef, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("lease", "reason", "message", "permanent", "since_start", "used", "retry_after")
    class UsedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PERMANENT_FIELD_NUMBER: _ClassVar[int]
    SINCE_START_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    reason: FailureReason
    message: str
    permanent: bool
    since_start: float
    used: _containers.ScalarMap[str, int]
    retry_after: float
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., reason: _Optional[_Union[FailureReason, str]] = ..., message: _Optional[str] = ..., permanent: _Optional[bool] = ..., since_start: _Optional[float] = ..., used: _Optional[_Mapping[str, int]] = ..., retry_after: _Optional[float] = ...) -> None: ...

class Stopped(_message.Message):
    __slots__ = ("lease", "message", "never_ran")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NEVER_RAN_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    message: str
    never_ran: bool
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., message: _Optional[str] = ..., never_ran: _Optional[bool] = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("slots", "resources")
    class ResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    slots: int
    resources: _containers.ScalarMap[str, int]
    def __init__(self, slots: _Optional[int] = ..., resources: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Reauthenticate(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class ToAgent(_message.Message):
    __slots__ = ("welcome", "refused", "grant", "renew", "cancel", "drain", "hold", "final")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    refused: Refused
    grant: Grant
    renew: Renew
    cancel: Cancel
    drain: Drain
    hold: Hold
    final: Final
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., hold: _Optional[_Union[Hold, _Mapping]] = ..., final: _Optional[_Union[Final, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("epoch", "slots", "ping_seconds", "draining", "protocol_version", "leadership")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    PING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEADERSHIP_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    slots: int
    ping_seconds: float
    draining: bool
    protocol_version: int
    leadership: str
    def __init__(self, epoch: _Optional[int] = ..., slots: _Optional[int] = ..., ping_seconds: _Optional[float] = ..., draining: _Optional[bool] = ..., protocol_version: _Optional[int] = ..., leadership: _Optional[str] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason", "message", "retry")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    retry: bool
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., retry: _Optional[bool] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("lease", "namespace", "name", "type", "slots", "resources", "ping_boot", "lease_seconds", "hold_seconds", "payload", "payload_ref", "parents", "execution_seconds", "progress_seconds", "chunk")
    class ResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    PING_BOOT_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HOLD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_REF_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    namespace: str
    name: str
    type: str
    slots: int
    resources: _containers.ScalarMap[str, int]
    ping_boot: float
    lease_seconds: float
    hold_seconds: float
    payload: bytes
    payload_ref: ObjectRef
    parents: _containers.RepeatedCompositeFieldContainer[ParentResult]
    execution_seconds: float
    progress_seconds: float
    chunk: Chunk
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., type: _Optional[str] = ..., slots: _Optional[int] = ..., resources: _Optional[_Mapping[str, int]] = ..., ping_boot: _Optional[float] = ..., lease_seconds: _Optional[float] = ..., hold_seconds: _Optional[float] = ..., payload: _Optional[bytes] = ..., payload_ref: _Optional[_Union[ObjectRef, _Mapping]] = ..., parents: _Optional[_Iterable[_Union[ParentResult, _Mapping]]] = ..., execution_seconds: _Optional[float] = ..., progress_seconds: _Optional[float] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("spans", "count", "payloads")
    SPANS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    count: int
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., count: _Optional[int] = ..., payloads: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class ParentResult(_message.Message):
    __slots__ = ("name", "phase", "result", "ref")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    name: str
    phase: str
    result: bytes
    ref: ObjectRef
    def __init__(self, name: _Optional[str] = ..., phase: _Optional[str] = ..., result: _Optional[bytes] = ..., ref: _Optional[_Union[ObjectRef, _Mapping]] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("epoch", "ping_boot", "leases")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PING_BOOT_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    ping_boot: float
    leases: _containers.RepeatedCompositeFieldContainer[LeaseName]
    def __init__(self, epoch: _Optional[int] = ..., ping_boot: _Optional[float] = ..., leases: _Optional[_Iterable[_Union[LeaseName, _Mapping]]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("lease", "reason", "message")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    reason: str
    message: str
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("undo",)
    UNDO_FIELD_NUMBER: _ClassVar[int]
    undo: bool
    def __init__(self, undo: _Optional[bool] = ...) -> None: ...

class Hold(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Final(_message.Message):
    __slots__ = ("lease", "verdict", "message")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseName
    verdict: Verdict
    message: str
    def __init__(self, lease: _Optional[_Union[LeaseName, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., message: _Optional[str] = ...) -> None: ...
