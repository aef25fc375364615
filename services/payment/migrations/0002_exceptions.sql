-- The exception desk, and what payments and refunds keep for it.

CREATE TABLE exceptions (
    id text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL,
    state text NOT NULL CHECK (state IN ('OPEN', 'PROPOSED', 'APPROVED', 'RESOLVED')),
    version bigint NOT NULL CHECK (version > 0),
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    subject_id text COLLATE "C" NOT NULL,
    payment_id text COLLATE "C" NOT NULL,
    channel text NOT NULL,
    currency_code text NOT NULL,
    amount_minor bigint NOT NULL,
    detail text NOT NULL,
    occasion text NOT NULL,
    default_action text NOT NULL,
    due_at timestamptz NOT NULL,
    repeats int NOT NULL CHECK (repeats >= 0),
    action text NOT NULL,
    maker text NOT NULL,
    maker_reason text NOT NULL,
    checker text NOT NULL,
    checker_reason text NOT NULL,
    resolution text NOT NULL,
    biz_trace_id text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT maker_is_never_the_checker CHECK (checker = '' OR checker <> maker)
) WITH (fillfactor = 60);
COMMENT ON TABLE exceptions IS
    'What the flows do not decide; the id is derived from subject, kind and occasion';
COMMENT ON COLUMN exceptions.currency_code IS 'Empty when no money is concerned';
COMMENT ON COLUMN exceptions.occasion IS 'Which time of the same kind about the same subject it is';
COMMENT ON COLUMN exceptions.repeats IS 'How often its default action was carried out in vain';
CREATE INDEX exceptions_waiting ON exceptions (due_at, id) WHERE state <> 'RESOLVED';
-- Asked with every outcome of a payment, and nearly always empty.
CREATE INDEX exceptions_open_subject ON exceptions (subject_id) WHERE state <> 'RESOLVED';
CREATE INDEX exceptions_payment ON exceptions (payment_id) WHERE payment_id <> '';
CREATE INDEX exceptions_story ON exceptions (biz_trace_id) WHERE biz_trace_id <> '';

ALTER TABLE payments
    ADD COLUMN received_currency_code text NOT NULL DEFAULT '',
    ADD COLUMN received_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN return_attempt int NOT NULL DEFAULT 1,
    ADD COLUMN retried_steps text NOT NULL DEFAULT '';
COMMENT ON COLUMN payments.received_minor IS
    'What really came, where it was other money than the amount; its currency is empty else';
COMMENT ON COLUMN payments.return_attempt IS
    'Number of the attempt to give all of it back at the channel; each has a reference of its own';
COMMENT ON COLUMN payments.retried_steps IS
    'Bookings that the ledger refused for good and that are tried again under other ids: settle=2';

ALTER TABLE refunds ADD COLUMN retried_steps text NOT NULL DEFAULT '';
COMMENT ON COLUMN refunds.retried_steps IS 'As in payments';
