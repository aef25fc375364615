-- The baseline's tables: the ledger's own columns and indexes, and no partitions, which is in the
-- baseline's favour.
CREATE TABLE plain_accounts (LIKE accounts INCLUDING ALL) WITH (fillfactor = 60);
CREATE TABLE plain_transfers (LIKE transfers INCLUDING ALL);
CREATE TABLE plain_entries (LIKE entries INCLUDING ALL);
