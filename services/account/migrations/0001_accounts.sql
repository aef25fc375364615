-- The outer books: accounts with four sums each, immutable transfers, open holds and how they
-- ended, one entry line per account and movement, the business date.
--
-- Keys begin with `book`, the unit of distribution. Ids compare by bytes (COLLATE "C"), as they
-- were made to. Tables that grow for ever are partitioned by the month inside the transfer's id:
-- partitions are made ahead by `services.account.store.partitions`.

-- One row per account, with its four sums; what is available and frozen is read from them.
CREATE TABLE accounts (
    book smallint NOT NULL,
    version bigint NOT NULL,
    debits_posted_minor bigint NOT NULL DEFAULT 0 CHECK (debits_posted_minor >= 0),
    credits_posted_minor bigint NOT NULL DEFAULT 0 CHECK (credits_posted_minor >= 0),
    debits_pending_minor bigint NOT NULL DEFAULT 0 CHECK (debits_pending_minor >= 0),
    credits_pending_minor bigint NOT NULL DEFAULT 0 CHECK (credits_pending_minor >= 0),
    credit_limit_minor bigint NOT NULL CHECK (credit_limit_minor >= 0),
    court_frozen_minor bigint NOT NULL DEFAULT 0 CHECK (court_frozen_minor >= 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    may_go_negative boolean NOT NULL,
    id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    currency_code text NOT NULL,
    normal_side text NOT NULL CHECK (normal_side IN ('DEBIT', 'CREDIT')),
    status text NOT NULL
        CHECK (status IN ('NORMAL', 'DEBIT_FROZEN', 'CREDIT_FROZEN', 'CLOSED')),
    PRIMARY KEY (book, id)
) WITH (fillfactor = 60);
-- Half of each page stays free, so that the many updates of a row find room beside it (HOT). No
-- index may name a column that a transfer changes.

CREATE INDEX accounts_by_owner ON accounts (owner_id, book);

-- Status and limits change rarely and by people: every change is kept.
CREATE TABLE account_changes (
    book smallint NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    request_id text NOT NULL,
    version bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    verb text NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    biz_trace_id text NOT NULL,
    PRIMARY KEY (book, account_id, request_id),
    UNIQUE (book, account_id, version)
);

-- What is kept under an id for ever: booked or refused. The journal that vouchers are made from.
CREATE TABLE transfers (
    book smallint NOT NULL,
    amount_minor bigint NOT NULL,
    booked_minor bigint NOT NULL,
    debit_version bigint NOT NULL,
    credit_version bigint NOT NULL,
    booked_at timestamptz NOT NULL,
    -- For readers that follow the journal: rows of transactions below the horizon of running ones
    -- are complete, whatever the order of commits.
    written_in xid8 NOT NULL DEFAULT pg_current_xact_id(),
    timeout_seconds integer NOT NULL,
    business_date date NOT NULL,
    value_on date,
    keep_rest boolean NOT NULL,
    linked boolean NOT NULL,
    forced boolean NOT NULL,
    id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('SINGLE', 'PENDING', 'POST', 'VOID', 'EXPIRE')),
    status text NOT NULL CHECK (status IN ('BOOKED', 'REFUSED')),
    debit_account_id text COLLATE "C" NOT NULL,
    credit_account_id text COLLATE "C" NOT NULL,
    redirected_to text COLLATE "C",
    currency_code text NOT NULL,
    pending_id text COLLATE "C" NOT NULL,
    movement text NOT NULL,
    reference_id text COLLATE "C" NOT NULL,
    biz_trace_id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    reason text,
    reason_metadata jsonb,
    CHECK ((status = 'REFUSED') = (reason IS NOT NULL)),
    CHECK (status = 'REFUSED' OR booked_minor > 0 OR kind = 'VOID'),
    PRIMARY KEY (book, id)
) PARTITION BY RANGE (id);

-- One story, days apart, read by its id; and what belongs to one noun. Both begin with a time, so
-- new rows meet at the right edge of the index.
CREATE INDEX transfers_by_story ON transfers (biz_trace_id);
CREATE INDEX transfers_by_reference ON transfers (reference_id);

-- Open holds only, so that the table stays as small as what is frozen.
CREATE TABLE holds (
    book smallint NOT NULL,
    held_minor bigint NOT NULL CHECK (held_minor > 0),
    posted_minor bigint NOT NULL CHECK (posted_minor >= 0),
    expires_at timestamptz,
    id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    debit_account_id text COLLATE "C" NOT NULL,
    credit_account_id text COLLATE "C" NOT NULL,
    currency_code text NOT NULL,
    PRIMARY KEY (book, id)
) WITH (fillfactor = 80);

CREATE INDEX holds_by_expiry ON holds (book, expires_at) WHERE expires_at IS NOT NULL;

-- How a hold ended; its key lets it end once only.
CREATE TABLE resolutions (
    book smallint NOT NULL,
    posted_minor bigint NOT NULL,
    resolved_at timestamptz NOT NULL,
    pending_id text COLLATE "C" NOT NULL,
    fate text NOT NULL CHECK (fate IN ('POSTED', 'PART_POSTED', 'VOIDED', 'EXPIRED')),
    resolved_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (book, pending_id)
) PARTITION BY RANGE (pending_id);

-- One line per account and movement, with the balance after it; appended, never changed.
CREATE TABLE entries (
    book smallint NOT NULL,
    is_debit boolean NOT NULL,
    business_date date NOT NULL,
    version bigint NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    debits_posted_minor bigint NOT NULL,
    credits_posted_minor bigint NOT NULL,
    booked_at timestamptz NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    transfer_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (book, account_id, version, transfer_id)
) PARTITION BY RANGE (transfer_id);

-- Read under a shared lock by every posting, taken exclusively by the day cut.
CREATE TABLE business_dates (
    book smallint PRIMARY KEY,
    business_date date NOT NULL,
    advanced_at timestamptz NOT NULL,
    actor text NOT NULL
);

-- Each advance of a book's business date; a repeat finds its answer here.
CREATE TABLE business_date_changes (
    book smallint NOT NULL,
    business_date date NOT NULL,
    previous_date date,
    advanced_at timestamptz NOT NULL,
    actor text NOT NULL,
    PRIMARY KEY (book, business_date)
);
