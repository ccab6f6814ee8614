"""Run all of Herald on one machine: a private RabbitMQ node, a database, every process, supervised."""
