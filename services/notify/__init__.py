"""Notify: tells merchants what happened, by webhooks signed as Standard Webhooks v1 says."""
