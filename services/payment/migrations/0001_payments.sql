-- Payments of orders, their attempts at channels, and instructions to give money back.

CREATE TABLE payments (
    id text COLLATE "C" PRIMARY KEY,
    order_id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    request_id text NOT NULL,
    product text NOT NULL,
    form text NOT NULL,
    state text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    user_id text NOT NULL,
    card_id text NOT NULL,
    bank_code text NOT NULL,
    subject text NOT NULL,
    order_type text NOT NULL,
    channel text NOT NULL,
    channel_reason text NOT NULL,
    attempt int NOT NULL,
    risk_verdict text NOT NULL,
    risk_rules text NOT NULL,
    action_kind text NOT NULL,
    action_content text NOT NULL,
    failure_reason text NOT NULL,
    decline_code text NOT NULL,
    raw_code text NOT NULL,
    advice text NOT NULL,
    fee_minor bigint NOT NULL CHECK (fee_minor >= 0),
    fee_returned_on_refund boolean NOT NULL,
    refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    refunding_minor bigint NOT NULL DEFAULT 0 CHECK (refunding_minor >= 0),
    fee_given_back_minor bigint NOT NULL DEFAULT 0 CHECK (fee_given_back_minor >= 0),
    business_date text NOT NULL,
    biz_trace_id text NOT NULL,
    client_ip text NOT NULL,
    device_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT refunds_never_exceed_the_payment
        CHECK (refunded_minor + refunding_minor <= amount_minor),
    CONSTRAINT fees_given_back_never_exceed_the_fee CHECK (fee_given_back_minor <= fee_minor)
) WITH (fillfactor = 60);
COMMENT ON TABLE payments IS 'Payments of orders; the id is derived from the order and the request';
CREATE INDEX payments_order ON payments (order_id);
CREATE INDEX payments_story ON payments (biz_trace_id);

-- Which references were ever sent to a channel, so that a callback finds its payment also after
-- another channel was tried.
CREATE TABLE attempts (
    payment_id text COLLATE "C" NOT NULL,
    attempt int NOT NULL,
    reference text COLLATE "C" NOT NULL,
    channel text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (payment_id, attempt)
);
COMMENT ON TABLE attempts IS 'One row for each channel that a payment was sent to';
CREATE UNIQUE INDEX attempts_reference ON attempts (reference);

CREATE TABLE refunds (
    id text COLLATE "C" PRIMARY KEY,
    payment_id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    state text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    fee_returned_minor bigint NOT NULL CHECK (fee_returned_minor >= 0),
    reason text NOT NULL,
    attempt int NOT NULL,
    source_kind text NOT NULL,
    failure_reason text NOT NULL,
    raw_code text NOT NULL,
    business_date text NOT NULL,
    biz_trace_id text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 60);
COMMENT ON TABLE refunds IS 'Instructions to give money back; the id is the business refund''s';
CREATE INDEX refunds_payment ON refunds (payment_id);
CREATE INDEX refunds_story ON refunds (biz_trace_id);
