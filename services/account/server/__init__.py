"""The servicers of the ledger, one a contract: the outer books and the inner books."""
