"""Message brokers as specs name them: hosts, names and logins that sources and sinks have in common."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

# A name of the DNS, or an address. No more is seen of it before it is dialled.
_NAME, _ADDRESS = "[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?", "[0-9A-Fa-f:.]+"
# Host and port; an address of the sixth version in brackets.
_BOOTSTRAP = rf"^({_NAME}|\[{_ADDRESS}\]):[1-9][0-9]{{0,4}}$"
# The characters that names in AMQP 0-9-1 are made of, as clients check them.
_AMQP_NAME = r"^[-A-Za-z0-9_.:@#,/+ ]+$"
# The address of a queue of SQS, or of what speaks like it.
_QUEUE_URL = r"^https?://[-A-Za-z0-9.:\[\]]+(/[-A-Za-z0-9_.]+)+$"
_ENDPOINT = r"^https?://[-A-Za-z0-9.:\[\]]+(/[-A-Za-z0-9_.]+)*/?$"
_REGION = r"^[a-z0-9]+(-[a-z0-9]+)*$"
KAFKA_NAME = r"^[-A-Za-z0-9_.]+$"

Host = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=f"^({_NAME}|{_ADDRESS})$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
VirtualHost = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^%]+$")]
AmqpName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_AMQP_NAME)]
RoutingKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Bootstrap = Annotated[
    list[Annotated[str, StringConstraints(min_length=3, max_length=260, pattern=_BOOTSTRAP)]],
    Field(min_length=1, max_length=16),
]
Topic = Annotated[str, StringConstraints(min_length=1, max_length=249, pattern=KAFKA_NAME)]
QueueUrl = Annotated[str, StringConstraints(min_length=10, max_length=512, pattern=_QUEUE_URL)]
Endpoint = Annotated[str, StringConstraints(min_length=8, max_length=512, pattern=_ENDPOINT)]
Region = Annotated[str, StringConstraints(min_length=2, max_length=32, pattern=_REGION)]


class Sasl(StrEnum):
    """The SASL mechanism by which username and password are shown to Kafka."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
