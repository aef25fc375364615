-- Addresses of merchants, webhooks, their deliveries and every attempt at them.

CREATE TABLE webhook_endpoints (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    request_id text NOT NULL,
    url text NOT NULL,
    types text[] NOT NULL,
    disabled boolean NOT NULL,
    sealed_secret bytea NOT NULL,
    biz_trace_id text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant_id, mode, merchant_id, request_id)
);
COMMENT ON TABLE webhook_endpoints IS 'Where merchants hear of things; secrets are sealed';

-- Apart from deliveries, so that a delivery's changes do not write the body again.
CREATE TABLE webhooks (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    type text NOT NULL,
    subject_id text COLLATE "C" NOT NULL,
    biz_trace_id text NOT NULL,
    body text NOT NULL,
    cause text NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE webhooks IS 'What is told; the id is derived from the event and never changes';

CREATE TABLE deliveries (
    id text COLLATE "C" PRIMARY KEY,
    webhook_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    type text NOT NULL,
    subject_id text COLLATE "C" NOT NULL,
    biz_trace_id text NOT NULL,
    state text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    attempts int NOT NULL DEFAULT 0,
    tries int NOT NULL DEFAULT 0,
    last_http_status int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    claimed_until timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT pending_deliveries_have_a_next_attempt
        CHECK ((state = 'PENDING') = (next_attempt_at IS NOT NULL))
) WITH (fillfactor = 70);
COMMENT ON TABLE deliveries IS 'A webhook on its way to one address';
COMMENT ON COLUMN deliveries.tries IS 'Attempts since it was made or sent again by hand';
COMMENT ON COLUMN deliveries.claimed_until IS 'Until then a process is sending it';
-- By address, so that the due ones of each are found without reading another's backlog.
CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_attempt_at) WHERE state = 'PENDING';
CREATE INDEX deliveries_newest
ON deliveries (tenant_id, mode, merchant_id, created_at DESC, id DESC);
CREATE INDEX deliveries_subject ON deliveries (subject_id);
CREATE INDEX deliveries_story ON deliveries (biz_trace_id);

CREATE TABLE attempts (
    delivery_id text COLLATE "C" NOT NULL,
    attempt int NOT NULL,
    http_status int NOT NULL,
    problem text NOT NULL,
    took_ms int NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, attempt)
);
COMMENT ON TABLE attempts IS 'What each attempt brought; append-only';

CREATE TABLE resends (
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    request_id text NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, mode, merchant_id, request_id)
);
COMMENT ON TABLE resends IS 'Deliveries sent again by hand, by request';
