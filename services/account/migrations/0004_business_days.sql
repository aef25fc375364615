-- Business days and accounting periods, how far they are, and the proofs that were made.

-- One row per book and day. The day whose row is OPEN is the book's in `business_dates`.
CREATE TABLE business_days (
    book smallint NOT NULL,
    business_date date NOT NULL,
    opened_at timestamptz NOT NULL,
    cut_at timestamptz,
    -- A transaction that had not begun at the cut: every transfer of the day was written in an
    -- earlier one.
    watermark xid8,
    -- The oldest transaction under way when the day began: no transfer of the day was written in an
    -- earlier one.
    begun_in xid8 NOT NULL DEFAULT '0',
    closed_at timestamptz,
    state text NOT NULL CHECK (state IN ('OPEN', 'CUTTING', 'BROKEN', 'CLOSED')),
    CHECK ((state = 'OPEN') = (cut_at IS NULL)),
    CHECK ((cut_at IS NULL) = (watermark IS NULL)),
    CHECK ((state = 'CLOSED') = (closed_at IS NOT NULL)),
    PRIMARY KEY (book, business_date)
);

-- What the closer looks for, again and again.
CREATE INDEX business_days_unclosed ON business_days (business_date, book)
WHERE state IN ('CUTTING', 'BROKEN');

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

CREATE INDEX proofs_by_day ON proofs (business_date, proved_at) WHERE occasion = 'DAY_CUT';

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

-- All vouchers, wherever they are kept.
CREATE VIEW all_vouchers AS
SELECT book, business_date, number, rule_version, total_minor, recorded_at, value_on, id, tenant_id,
       mode, source, source_id, rule, currency_code, summary, biz_trace_id, actor
FROM vouchers
UNION ALL
SELECT book, business_date, number, rule_version, total_minor, recorded_at, value_on, id, tenant_id,
       mode, source, source_id, rule, currency_code, summary, biz_trace_id, actor
FROM archived_vouchers;

-- The lines of all vouchers.
CREATE VIEW all_voucher_lines AS
SELECT book, business_date, number, line, is_debit, amount_minor, tenant_id, mode, subject_code
FROM voucher_lines
UNION ALL
SELECT book, business_date, number, line, is_debit, amount_minor, tenant_id, mode, subject_code
FROM archived_voucher_lines;

-- A period that was closed takes no voucher any more, whoever writes it. The lock is shared by all
-- who write into a month and taken alone by its close, so that none slips in beside it; a statement
-- of its own after the lock sees what was committed while it waited. (The key's first half is any
-- number that nobody else locks.)
CREATE FUNCTION refuse_closed_period() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    month text;
BEGIN
    FOR month IN SELECT DISTINCT to_char(business_date, 'YYYY-MM') FROM written ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock_shared(1886744431, replace(month, '-', '')::integer);
        IF EXISTS (SELECT 1 FROM periods WHERE period = month) THEN
            RAISE EXCEPTION 'period % is closed and takes no voucher', month
                USING ERRCODE = 'integrity_constraint_violation',
                      CONSTRAINT = 'vouchers_period_open';
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

CREATE TRIGGER vouchers_period_open AFTER INSERT ON vouchers
REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION refuse_closed_period();
