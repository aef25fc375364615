-- The inner books: accounting rules, vouchers with their lines, and the sums that they add up to.
--
-- Vouchers are partitioned by business month, the unit that periods are closed and archived in:
-- partitions are made ahead like those of the journal. A journal voucher's business date is its
-- transfer's, so that the key below holds over all months.

-- The journal in the order of its transactions. Rows of one transaction share their key, which the
-- index keeps once.
CREATE INDEX transfers_by_writing ON transfers (book, written_in);

-- The chart of accounts as the files had it when the service started.
CREATE TABLE subjects (
    code text PRIMARY KEY,
    parent_code text NOT NULL,
    name text NOT NULL,
    class text NOT NULL
        CHECK (class IN ('ASSET', 'LIABILITY', 'EQUITY', 'INCOME', 'EXPENSE', 'COMMON')),
    normal_side text NOT NULL CHECK (normal_side IN ('DEBIT', 'CREDIT'))
);

-- Which subject the accounts of a kind add up to. A kind never moves to another subject.
CREATE TABLE subject_kinds (
    kind text PRIMARY KEY,
    subject_code text NOT NULL REFERENCES subjects (code)
);

-- Accounting rules by movement and version; never changed, a changed rule is a new version.
CREATE TABLE accounting_rules (
    movement text NOT NULL,
    version integer NOT NULL,
    summary text NOT NULL,
    lines jsonb NOT NULL,
    PRIMARY KEY (movement, version)
);

-- Lines of the rules, for joins. `subject_code` is empty where the line takes the subject of the
-- debited or credited account (`subject_of`).
CREATE TABLE accounting_rule_lines (
    movement text NOT NULL,
    version integer NOT NULL,
    line smallint NOT NULL,
    is_debit boolean NOT NULL,
    subject_of text NOT NULL CHECK (subject_of IN ('', 'DEBIT_ACCOUNT', 'CREDIT_ACCOUNT')),
    subject_code text NOT NULL,
    CHECK ((subject_of = '') = (subject_code <> '')),
    PRIMARY KEY (movement, version, line)
);

-- How far vouchers are made of a book's journal: every transaction up to this one.
CREATE TABLE voucher_cursors (
    book smallint PRIMARY KEY,
    written_in xid8 NOT NULL,
    moved_at timestamptz NOT NULL
);

-- A movement in double entry. Never changed; `voucher_reversals` tells what took it back.
CREATE TABLE vouchers (
    book smallint NOT NULL,
    business_date date NOT NULL,
    number bigint NOT NULL,
    rule_version integer NOT NULL,
    total_minor bigint NOT NULL CHECK (total_minor > 0),
    recorded_at timestamptz NOT NULL,
    value_on date,
    id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    source text NOT NULL
        CHECK (source IN ('JOURNAL', 'EVENT', 'MANUAL', 'REVERSAL', 'CLOSING')),
    source_id text COLLATE "C" NOT NULL,
    rule text NOT NULL,
    currency_code text NOT NULL,
    summary text NOT NULL,
    biz_trace_id text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    PRIMARY KEY (book, business_date, tenant_id, mode, number),
    UNIQUE (book, business_date, source_id, source, rule, rule_version)
) PARTITION BY RANGE (business_date);

CREATE INDEX vouchers_by_id ON vouchers (book, id);

-- Those of a story that are not found by its transfers: few, so the index costs the journal's
-- vouchers nothing.
CREATE INDEX vouchers_by_story ON vouchers (biz_trace_id)
WHERE source <> 'JOURNAL' AND biz_trace_id <> '';

-- The lines of a voucher.
CREATE TABLE voucher_lines (
    book smallint NOT NULL,
    business_date date NOT NULL,
    number bigint NOT NULL,
    line smallint NOT NULL,
    is_debit boolean NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    tenant_id text NOT NULL,
    mode text NOT NULL,
    subject_code text NOT NULL,
    PRIMARY KEY (book, business_date, tenant_id, mode, number, line)
) PARTITION BY RANGE (business_date);

-- What took a voucher back, once only; and what stands in its place.
CREATE TABLE voucher_reversals (
    book smallint NOT NULL,
    reversed_at timestamptz NOT NULL,
    voucher_id text COLLATE "C" NOT NULL,
    reversal_id text COLLATE "C" NOT NULL,
    replacement_id text COLLATE "C",
    tenant_id text NOT NULL,
    mode text NOT NULL,
    request_id text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    PRIMARY KEY (book, voucher_id),
    UNIQUE (tenant_id, mode, actor, request_id)
);

-- The sums of a day's voucher lines by subject and currency: what the trial balance reads. Closing
-- vouchers have sums of their own, because the proof compares what accounts moved.
CREATE TABLE subject_balances (
    book smallint NOT NULL,
    business_date date NOT NULL,
    debits_minor numeric NOT NULL,
    credits_minor numeric NOT NULL,
    closing_debits_minor numeric NOT NULL DEFAULT 0,
    closing_credits_minor numeric NOT NULL DEFAULT 0,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    subject_code text NOT NULL,
    currency_code text NOT NULL,
    PRIMARY KEY (book, business_date, tenant_id, mode, subject_code, currency_code)
) WITH (fillfactor = 60);

-- The last number that was given in a world's register of a day.
CREATE TABLE voucher_numbers (
    book smallint NOT NULL,
    business_date date NOT NULL,
    number_last bigint NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    PRIMARY KEY (book, business_date, tenant_id, mode)
) WITH (fillfactor = 60);
