"""The contracts of `routing`: which channel carries a payment, and why."""
