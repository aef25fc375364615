"""The REST edge for merchants' programs: signing requests.

Needs `cryptography` (`pip install 'paymesh[rest]'`), which is imported with the first signer.
"""

from __future__ import annotations

from paymesh.edge.signing import RequestSigner as RequestSigner
from paymesh.edge.signing import generate_key as generate_key
