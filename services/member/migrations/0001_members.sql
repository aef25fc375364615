-- Merchants, their keys, users and cards.

CREATE TABLE merchants (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_no text NOT NULL,
    name text NOT NULL,
    status text NOT NULL CHECK (status IN ('OPENING', 'ACTIVE', 'SUSPENDED', 'CLOSED')),
    currency_codes text[] NOT NULL,
    request_id text NOT NULL,
    actor text NOT NULL,
    biz_trace_id text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant_id, request_id),
    UNIQUE (tenant_id, merchant_no)
);
COMMENT ON TABLE merchants IS 'Who sells';
CREATE INDEX merchants_opening ON merchants (created_at) WHERE status = 'OPENING';

CREATE TABLE merchant_status_changes (
    tenant_id text NOT NULL,
    request_id text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    status text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, request_id)
);
COMMENT ON TABLE merchant_status_changes IS 'What operators asked for, so that a repeat is known';
CREATE TRIGGER merchant_status_changes_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON merchant_status_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE merchant_keys (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    mode text NOT NULL CHECK (mode IN ('LIVE', 'TEST')),
    public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
    request_id text NOT NULL,
    actor text NOT NULL,
    revoked_at timestamptz,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant_id, request_id)
);
COMMENT ON TABLE merchant_keys IS 'Public keys that merchants sign with';
CREATE INDEX merchant_keys_merchant ON merchant_keys (merchant_id);

CREATE TABLE users (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    merchant_user_no text NOT NULL,
    status text NOT NULL CHECK (status IN ('OPENING', 'ACTIVE', 'SUSPENDED', 'CLOSED')),
    currency_codes text[] NOT NULL,
    request_id text NOT NULL,
    actor text NOT NULL,
    biz_trace_id text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (merchant_id, mode, tenant_id, request_id),
    UNIQUE (merchant_id, mode, tenant_id, merchant_user_no)
) WITH (fillfactor = 70);
COMMENT ON TABLE users IS 'Users of merchants';
CREATE INDEX users_opening ON users (created_at) WHERE status = 'OPENING';

CREATE TABLE cards (
    id text COLLATE "C" PRIMARY KEY,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    last_four text NOT NULL,
    bank_code text NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    number_hash bytea NOT NULL,
    elements_hash bytea NOT NULL,
    request_id text NOT NULL,
    actor text NOT NULL,
    biz_trace_id text NOT NULL,
    unbound_at timestamptz,
    version bigint NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (merchant_id, mode, tenant_id, request_id)
);
COMMENT ON TABLE cards IS 'Bound bank cards, their elements sealed';
COMMENT ON COLUMN cards.sealed IS 'Number, holder, identity and phone under AES-256-GCM';
COMMENT ON COLUMN cards.number_hash IS 'Keyed hash of the number';
COMMENT ON COLUMN cards.elements_hash IS 'Keyed hash of all elements: what a repeat is compared by';
CREATE UNIQUE INDEX cards_bound ON cards (user_id, number_hash) WHERE unbound_at IS NULL;
