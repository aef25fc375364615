"""The contracts of `notify`: webhooks to merchants."""
