"""The contracts of `sandbox`: what the simulated outside parties really moved."""
