-- Channels, what was asked of them, and what they sent.

CREATE TABLE channels (
    code text COLLATE "C" PRIMARY KEY,
    adapter text NOT NULL,
    products text[] NOT NULL,
    currency_codes text[] NOT NULL,
    amount_min_minor bigint NOT NULL CHECK (amount_min_minor > 0),
    amount_max_minor bigint NOT NULL CHECK (amount_max_minor >= amount_min_minor),
    request_life_seconds int NOT NULL CHECK (request_life_seconds > 0),
    timeout_seconds float8 NOT NULL CHECK (timeout_seconds > 0),
    suspended boolean NOT NULL,
    config jsonb NOT NULL,
    credentials text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    updated_at timestamptz NOT NULL
);
COMMENT ON TABLE channels IS 'Which channels there are; holds no secret';
COMMENT ON COLUMN channels.credentials IS 'Where in the file of credentials this channel''s are';

CREATE TABLE charges (
    reference text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    biz_trace_id text NOT NULL,
    channel text NOT NULL,
    payment_id text COLLATE "C" NOT NULL,
    product text NOT NULL,
    card_id text NOT NULL,
    subject text NOT NULL,
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    expires_at timestamptz,
    state text NOT NULL,
    received_currency_code text,
    received_minor bigint CHECK (received_minor >= 0),
    channel_transaction_no text NOT NULL,
    qr_content text NOT NULL,
    redirect_url text NOT NULL,
    refusal_reason text NOT NULL,
    decline_code text NOT NULL,
    raw_code text NOT NULL,
    raw_message text NOT NULL,
    remedy text NOT NULL,
    blame text NOT NULL,
    paid_at timestamptz,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT charges_settled_with_what_was_received
        CHECK ((state IN ('SUCCEEDED', 'CONFLICTED')) = (received_minor IS NOT NULL)),
    CONSTRAINT charges_succeed_with_the_amount_asked CHECK (
        state <> 'SUCCEEDED'
        OR (received_minor = amount_minor AND received_currency_code = currency_code)
    )
) WITH (fillfactor = 60);
COMMENT ON TABLE charges IS 'Requests to channels to take money, and what became of them';
CREATE INDEX charges_payment ON charges (payment_id);
CREATE INDEX charges_story ON charges (biz_trace_id) WHERE biz_trace_id <> '';

CREATE TABLE channel_refunds (
    reference text COLLATE "C" PRIMARY KEY,
    charge_reference text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    biz_trace_id text NOT NULL,
    channel text NOT NULL,
    subject_id text COLLATE "C" NOT NULL,
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    words text NOT NULL,
    state text NOT NULL,
    channel_transaction_no text NOT NULL,
    refusal_reason text NOT NULL,
    decline_code text NOT NULL,
    raw_code text NOT NULL,
    raw_message text NOT NULL,
    remedy text NOT NULL,
    blame text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 60);
COMMENT ON TABLE channel_refunds IS 'Requests to channels to give money back';
CREATE INDEX channel_refunds_charge ON channel_refunds (charge_reference);
CREATE INDEX channel_refunds_subject ON channel_refunds (subject_id);
CREATE INDEX channel_refunds_story ON channel_refunds (biz_trace_id) WHERE biz_trace_id <> '';

CREATE TABLE callbacks (
    channel text COLLATE "C" NOT NULL,
    notice_id text COLLATE "C" NOT NULL,
    callback_id text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    reference text COLLATE "C" NOT NULL,
    told_state text NOT NULL,
    told_currency_code text,
    told_minor bigint,
    raw_code text NOT NULL,
    verdict text NOT NULL,
    body_digest bytea NOT NULL,
    biz_trace_id text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (channel, notice_id)
);
COMMENT ON TABLE callbacks IS 'What channels sent and signed, without the personal parts';
COMMENT ON COLUMN callbacks.body_digest IS 'SHA-256 of the body, to find it in the channel''s log';
CREATE INDEX callbacks_reference ON callbacks (reference);
-- Never updated, so this costs an insert only where a person has to look.
CREATE INDEX callbacks_to_look_at ON callbacks (reference)
    WHERE verdict = 'CONTRADICTED' OR (verdict = 'ORPHAN' AND told_state = 'SUCCEEDED');
CREATE TRIGGER callbacks_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON callbacks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
