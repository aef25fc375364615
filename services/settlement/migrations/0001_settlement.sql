-- Fee plans with every change, and clearing entries.

CREATE TABLE fee_plans (
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    rate_ppm bigint NOT NULL CHECK (rate_ppm BETWEEN 0 AND 1000000),
    returned_on_refund boolean NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, mode, merchant_id)
);
COMMENT ON TABLE fee_plans IS 'What merchants pay that have a plan of their own';

CREATE TABLE fee_plan_changes (
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    rate_ppm bigint NOT NULL,
    returned_on_refund boolean NOT NULL,
    version bigint NOT NULL,
    biz_trace_id text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, mode, merchant_id, request_id),
    UNIQUE (tenant_id, mode, merchant_id, version)
);
COMMENT ON TABLE fee_plan_changes IS 'Every plan that ever held, and the request that made it';

CREATE TABLE clearing_entries (
    id text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('PAYMENT', 'REFUND')),
    subject_id text COLLATE "C" NOT NULL,
    payment_id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    currency_code text NOT NULL,
    gross_minor bigint NOT NULL,
    fee_minor bigint NOT NULL,
    net_minor bigint NOT NULL,
    business_date date NOT NULL,
    biz_trace_id text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT one_entry_per_subject UNIQUE (subject_id, kind),
    CONSTRAINT net_is_gross_less_fee CHECK (net_minor = gross_minor - fee_minor)
);
COMMENT ON TABLE clearing_entries IS 'What movements mean for merchants; written once';
CREATE INDEX clearing_entries_day ON clearing_entries (merchant_id, business_date);
CREATE INDEX clearing_entries_story ON clearing_entries (biz_trace_id);
CREATE TRIGGER clearing_entries_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A refund's event does not say what kind of order it is of, so payments without an entry are
-- remembered: a refund of one makes no entry either.
CREATE TABLE exempt_payments (
    payment_id text COLLATE "C" PRIMARY KEY,
    order_type text NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE exempt_payments IS 'Payments that concern no merchant: recharges';
