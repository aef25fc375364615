-- Orders, refunds, and what of them is still open.

CREATE TABLE orders (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    merchant_order_no text COLLATE "C" NOT NULL,
    type text NOT NULL,
    state text NOT NULL
        CHECK (state IN ('CREATED', 'PAID', 'COMPLETED', 'CLOSING', 'CLOSED')),
    version bigint NOT NULL CHECK (version > 0),
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor BETWEEN 0 AND 1000000000000000),
    fee_minor bigint NOT NULL CHECK (fee_minor BETWEEN 0 AND amount_minor),
    fee_rate_ppm bigint NOT NULL,
    fee_returned_on_refund boolean NOT NULL,
    user_id text NOT NULL,
    subject text NOT NULL,
    payment_id text COLLATE "C" NOT NULL DEFAULT '',
    refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    refunding_minor bigint NOT NULL DEFAULT 0 CHECK (refunding_minor >= 0),
    biz_trace_id text NOT NULL,
    metadata jsonb NOT NULL,
    expires_in_seconds int NOT NULL,
    business_date text NOT NULL DEFAULT '',
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT orders_number UNIQUE (tenant_id, mode, merchant_id, merchant_order_no),
    CONSTRAINT orders_request UNIQUE (tenant_id, mode, merchant_id, request_id),
    CONSTRAINT refunds_never_exceed_the_order
        CHECK (refunded_minor + refunding_minor <= amount_minor),
    CONSTRAINT paid_orders_have_their_payment
        CHECK ((payment_id <> '') = (state = 'PAID' OR state = 'COMPLETED' AND amount_minor > 0))
) WITH (fillfactor = 60);
COMMENT ON TABLE orders IS 'Business orders; amount and fee never change';
-- No index names a column that a claim or completion changes, so that both are HOT updates.
CREATE INDEX orders_of_merchant ON orders (merchant_id, id);
CREATE INDEX orders_story ON orders (biz_trace_id);

-- What is not over is looked for here and not by an index on orders: rows go when they end, so the
-- table stays as small as what is under way.
CREATE TABLE open_orders (
    order_id text COLLATE "C" PRIMARY KEY,
    due_at timestamptz NOT NULL,
    attempts int NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
COMMENT ON TABLE open_orders IS 'Orders that have not ended; due when they are to be closed';
CREATE INDEX open_orders_due ON open_orders (due_at);

CREATE TABLE refunds (
    id text COLLATE "C" PRIMARY KEY,
    order_id text COLLATE "C" NOT NULL,
    payment_id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    merchant_refund_no text COLLATE "C" NOT NULL,
    state text NOT NULL
        CHECK (state IN ('PROCESSING', 'COMPLETED', 'FAILED', 'WAITING_FUNDS')),
    version bigint NOT NULL CHECK (version > 0),
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 1000000000000000),
    fee_returned_minor bigint NOT NULL DEFAULT 0
        CHECK (fee_returned_minor BETWEEN 0 AND amount_minor),
    reason text NOT NULL,
    failure_reason text NOT NULL DEFAULT '',
    biz_trace_id text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT refunds_number UNIQUE (tenant_id, mode, merchant_id, merchant_refund_no),
    CONSTRAINT refunds_request UNIQUE (tenant_id, mode, merchant_id, request_id)
) WITH (fillfactor = 60);
COMMENT ON TABLE refunds IS 'Money that goes back on orders';
CREATE INDEX refunds_order ON refunds (order_id);
CREATE INDEX refunds_story ON refunds (biz_trace_id);

CREATE TABLE open_refunds (
    refund_id text COLLATE "C" PRIMARY KEY,
    due_at timestamptz NOT NULL,
    attempts int NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
COMMENT ON TABLE open_refunds IS 'Refunds that have not ended; due when payment is asked again';
CREATE INDEX open_refunds_due ON open_refunds (due_at);

CREATE TABLE business_dates (
    tenant_id text NOT NULL,
    mode text NOT NULL,
    business_date text NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, mode)
);
COMMENT ON TABLE business_dates IS 'The last business date that the ledger told; only moves forward';
