"""Changes of users, groups, sessions and keys on their way to RabbitMQ: transactional outbox and relay."""
