"""What notify refuses, each with its reason."""

from __future__ import annotations

from common.errors import PaymeshError


class WebhookUrlRefusedError(PaymeshError):
    """{field}: {rule}."""

    reason = "WEBHOOK_URL_REFUSED"
