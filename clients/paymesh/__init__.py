"""paymesh: generated stubs of every contract, and the typed async client over them."""
