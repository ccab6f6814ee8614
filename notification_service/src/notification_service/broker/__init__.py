"""RabbitMQ: connections that heal, the topology, confirmed publishing, supervised consuming.

The only package that imports an AMQP library. It uses aiormq, the protocol layer of aio-pika, because consuming costs a
third less there and because aio-pika's robust mode hides dead consumers and revives deleted queues
(docs/decisions/0006). Publishing and consuming have connections of their own: a memory alarm blocks publishers only.
"""
