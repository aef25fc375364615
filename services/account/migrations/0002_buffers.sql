-- Buffered accounts: single credits are appended here under a shared key lock of the account, and
-- drained to its balance and entries soon after, so that any number of writers may credit it.

ALTER TABLE accounts ADD COLUMN is_buffered boolean NOT NULL DEFAULT false;

-- Credits that are booked but not drained. Small: the drain empties it.
CREATE TABLE buffered_credits (
    book smallint NOT NULL,
    business_date date NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    booked_at timestamptz NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    transfer_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (book, account_id, transfer_id)
) WITH (fillfactor = 90);

-- Entries of drained credits: when the credit was appended. The account's `version` and the entry's
-- `booked_at` are the drain's, so that both only ever grow along a statement.
ALTER TABLE entries ADD COLUMN appended_at timestamptz;

CREATE INDEX entries_by_appending ON entries (book, account_id, appended_at)
WHERE appended_at IS NOT NULL;

-- What a repeat is told, and how a transfer's second line is found. A balancing transfer's amount
-- is a maximum: `booked_minor` is what was moved.
ALTER TABLE transfers
    ADD COLUMN is_buffered boolean NOT NULL DEFAULT false,
    ADD COLUMN balancing_debit boolean NOT NULL DEFAULT false,
    ADD COLUMN balancing_credit boolean NOT NULL DEFAULT false;
