"""The contracts of `settlement`: fees, clearing, and who gets what."""
