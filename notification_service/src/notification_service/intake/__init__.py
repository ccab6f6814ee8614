"""Stage 1, accept: REST and AMQP in, one check, one store, confirm."""
