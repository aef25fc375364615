"""Alipay's open platform, as far as QR payments go: gateway, trades, notifications."""
