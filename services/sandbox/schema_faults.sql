-- What faults on demand added to what the parties remember.

-- What the merchant asked for, where the party took another amount; NULL where it did not.
ALTER TABLE alipay_trades ADD COLUMN asked_minor INTEGER;
-- The code under which the trade was refused when it was to be made; empty when it was made.
ALTER TABLE alipay_trades ADD COLUMN declined_code TEXT NOT NULL DEFAULT '';

-- Refunds that Alipay refused on demand, so that a repeat is refused, too.
CREATE TABLE alipay_refund_refusals (
    trade_number    INTEGER NOT NULL REFERENCES alipay_trades,
    out_request_no  TEXT NOT NULL,
    sub_code        TEXT NOT NULL,
    PRIMARY KEY (trade_number, out_request_no)
) STRICT, WITHOUT ROWID;

-- A notice that is signed wrongly is tried once, then counts as acknowledged.
ALTER TABLE notices ADD COLUMN signed_wrongly INTEGER NOT NULL DEFAULT 0;
-- The notice that is tried before this one; NULL for none.
ALTER TABLE notices ADD COLUMN follows INTEGER;
CREATE INDEX notices_following ON notices (follows) WHERE follows IS NOT NULL;

-- The plan in force, one row at most.
CREATE TABLE fault_plan (
    plan_number  INTEGER PRIMARY KEY CHECK (plan_number = 1),
    seed         INTEGER NOT NULL
) STRICT;

-- Its rules in their order, and how often each has hit.
CREATE TABLE fault_rules (
    position         INTEGER PRIMARY KEY,
    rule_id          TEXT NOT NULL UNIQUE,
    kind             TEXT NOT NULL,
    party            TEXT NOT NULL,
    merchant_number  TEXT NOT NULL,
    verb             TEXT NOT NULL,
    amount_minor     INTEGER NOT NULL,
    rate_ppm         INTEGER NOT NULL,
    delay_ms         INTEGER NOT NULL,
    hits_max         INTEGER NOT NULL,
    hits             INTEGER NOT NULL DEFAULT 0
) STRICT;

-- How often each request was asked under this plan.
CREATE TABLE fault_requests (
    party            TEXT NOT NULL,
    merchant_number  TEXT NOT NULL,
    reference        TEXT NOT NULL,
    verb             TEXT NOT NULL,
    times            INTEGER NOT NULL,
    PRIMARY KEY (party, merchant_number, reference, verb)
) STRICT, WITHOUT ROWID;

-- Until when a party is out.
CREATE TABLE fault_outages (
    party    TEXT PRIMARY KEY,
    ends_at  REAL NOT NULL
) STRICT, WITHOUT ROWID;
