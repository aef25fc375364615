"""What all contracts share: money, principals, stories and facts."""
