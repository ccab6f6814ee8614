"""Stage 3, keep: every user's numbered stream of items, the broadcast log, and how far each device has received both.

The mailbox is the truth; the user's queue in RabbitMQ only hands over (docs/decisions/0002).
"""
