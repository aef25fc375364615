"""Events between services: written with the change they tell of, told at least once, heard once.

The outbox and its relay on one side, RabbitMQ between, the inbox and its consumers on the other.
"""
