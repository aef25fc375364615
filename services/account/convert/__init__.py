"""Domain ↔ contracts of the ledger, one file for each servicer."""
