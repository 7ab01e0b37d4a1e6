"""Connections to message brokers, for those that read there (sources) and those that publish (sinks).

- `amqp`, `amqp_frames`: RabbitMQ over AMQP 0-9-1.
- `kafka`: Kafka.
- `sqs`, `sqs_errors`: Amazon SQS.

What is said on a connection is the business of whoever opens it. The libraries are extras: import these modules only
where a broker of the kind is spoken to.
"""
