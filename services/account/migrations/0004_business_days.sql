-- Business days and accounting periods, how far they are, and the proofs that were made.

-- One row per book and day. The day whose row is OPEN is the book's in `business_dates`.
CREATE TABLE business_days (
    book smallint NOT NULL,
    business_date date NOT NULL,
    opened_at timestamptz NOT NULL,
    cut_at timestamptz,
    -- The transaction of the cut: every transfer of the day was written in an earlier one.
    watermark xid8,
    closed_at timestamptz,
    state text NOT NULL CHECK (state IN ('OPEN', 'CUTTING', 'BROKEN', 'CLOSED')),
    CHECK ((state = 'OPEN') = (cut_at IS NULL)),
    CHECK ((cut_at IS NULL) = (watermark IS NULL)),
    CHECK ((state = 'CLOSED') = (closed_at IS NOT NULL)),
    PRIMARY KEY (book, business_date)
);

-- Days that began before this table was made are long over: they have no vouchers to wait for.
INSERT INTO business_days (book, business_date, opened_at, state)
SELECT book, business_date, advanced_at, 'OPEN' FROM business_dates;

-- Every change of a day's state.
CREATE TABLE business_day_changes (
    book smallint NOT NULL,
    business_date date NOT NULL,
    changed_at timestamptz NOT NULL,
    change bigint GENERATED ALWAYS AS IDENTITY,
    from_state text NOT NULL,
    to_state text NOT NULL,
    actor text NOT NULL,
    cause text NOT NULL,
    PRIMARY KEY (book, business_date, change)
);

-- Proofs: the last continuous one, and each day's. `lines` and `unfit` are small.
CREATE TABLE proofs (
    id text COLLATE "C" PRIMARY KEY,
    proved_at timestamptz NOT NULL,
    business_date date NOT NULL,
    holds boolean NOT NULL,
    in_flight_count bigint NOT NULL,
    occasion text NOT NULL CHECK (occasion IN ('CONTINUOUS', 'DAY_CUT', 'ON_DEMAND')),
    in_flight_ids text[] NOT NULL,
    lines jsonb NOT NULL,
    unfit jsonb NOT NULL
);

CREATE INDEX proofs_by_time ON proofs (proved_at);

-- Accounting periods, calendar months of all books and worlds. A month without a row is open.
CREATE TABLE periods (
    period text PRIMARY KEY,
    closed_at timestamptz NOT NULL,
    archived_at timestamptz,
    state text NOT NULL CHECK (state IN ('CLOSED', 'ARCHIVED')),
    actor text NOT NULL
);

-- Where each subject stood when a period was closed: the trial balance of later days starts here.
CREATE TABLE period_balances (
    period text NOT NULL,
    book smallint NOT NULL,
    opening_minor numeric NOT NULL,
    debits_minor numeric NOT NULL,
    credits_minor numeric NOT NULL,
    closing_minor numeric NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    subject_code text NOT NULL,
    currency_code text NOT NULL,
    PRIMARY KEY (period, book, tenant_id, mode, subject_code, currency_code)
);

-- Vouchers of archived periods: the months are moved here as a whole, and read as before.
CREATE TABLE archived_vouchers (LIKE vouchers INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
PARTITION BY RANGE (business_date);

-- The lines of archived vouchers.
CREATE TABLE archived_voucher_lines (LIKE voucher_lines INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
PARTITION BY RANGE (business_date);
