"""The contracts of `payment`: how an order is paid, and given back."""
