"""The contracts of `trade`: what was bought, and how far it is."""
