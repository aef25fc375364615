"""The products: ways to pay, one file each, found at start-up.

A product plans, the engine runs. A file here has a docstring, a pure planning function and one
object that it adds to `PRODUCTS` under the file's name. A plan is data, so a wrong product cannot
move money by itself.
"""

from __future__ import annotations

from typing import Final

from common.registry import Registry
from services.payment.domain.plans import Product

PRODUCTS: Final = Registry("product", Product, __name__)
