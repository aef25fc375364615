-- What the outside parties remember. Amounts are minor units, times Unix seconds (UTC).

-- Trades at Alipay, one per out_trade_no.
CREATE TABLE IF NOT EXISTS alipay_trades (
    trade_number    INTEGER PRIMARY KEY,
    app_id          TEXT NOT NULL,
    out_trade_no    TEXT NOT NULL,
    trade_no        TEXT NOT NULL,
    qr_code         TEXT NOT NULL UNIQUE,
    subject         TEXT NOT NULL,
    amount_minor    INTEGER NOT NULL CHECK (amount_minor > 0),
    currency_code   TEXT NOT NULL,
    state           TEXT NOT NULL,
    notify_url      TEXT NOT NULL,
    expires_at      REAL,
    created_at      REAL NOT NULL,
    paid_at         REAL,
    refunded_minor  INTEGER NOT NULL DEFAULT 0 CHECK (refunded_minor BETWEEN 0 AND amount_minor),
    UNIQUE (app_id, out_trade_no)
) STRICT;

-- Refunds at Alipay, one per out_request_no of a trade.
CREATE TABLE IF NOT EXISTS alipay_refunds (
    trade_number    INTEGER NOT NULL REFERENCES alipay_trades,
    out_request_no  TEXT NOT NULL,
    amount_minor    INTEGER NOT NULL CHECK (amount_minor > 0),
    refunded_at     REAL NOT NULL,
    PRIMARY KEY (trade_number, out_request_no)
) STRICT, WITHOUT ROWID;

-- Transactions at UnionPay: charges, refunds, voids, one per orderId; also the declined ones.
CREATE TABLE IF NOT EXISTS unionpay_transactions (
    transaction_number  INTEGER PRIMARY KEY,
    merchant_id         TEXT NOT NULL,
    order_id            TEXT NOT NULL,
    sent_time           TEXT NOT NULL,
    kind                TEXT NOT NULL,
    query_id            TEXT NOT NULL UNIQUE,
    original_query_id   TEXT NOT NULL,
    amount_minor        INTEGER NOT NULL CHECK (amount_minor > 0),
    currency_number     TEXT NOT NULL,
    account_masked      TEXT NOT NULL,
    response_code       TEXT NOT NULL,
    processed_at        REAL NOT NULL,
    known_at            REAL NOT NULL,
    returned_minor      INTEGER NOT NULL DEFAULT 0 CHECK (returned_minor BETWEEN 0 AND amount_minor),
    UNIQUE (merchant_id, order_id)
) STRICT;

-- The parties' own ledger of what really moved. Rows never change.
CREATE TABLE IF NOT EXISTS movements (
    movement_id             INTEGER PRIMARY KEY,
    party                   TEXT NOT NULL,
    merchant_number         TEXT NOT NULL,
    reference               TEXT NOT NULL,
    payment_reference       TEXT NOT NULL,
    channel_transaction_no  TEXT NOT NULL,
    kind                    TEXT NOT NULL,
    amount_minor            INTEGER NOT NULL CHECK (amount_minor > 0),
    currency_code           TEXT NOT NULL,
    occurred_at             REAL NOT NULL,
    UNIQUE (party, merchant_number, kind, reference, payment_reference)
) STRICT;

-- Callbacks that are owed to merchants.
CREATE TABLE IF NOT EXISTS notices (
    notice_id        INTEGER PRIMARY KEY,
    party            TEXT NOT NULL,
    merchant_number  TEXT NOT NULL,
    url              TEXT NOT NULL,
    fields           TEXT NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_at          REAL NOT NULL,
    acknowledged_at  REAL
) STRICT;

CREATE INDEX IF NOT EXISTS notices_owed ON notices (notice_id) WHERE acknowledged_at IS NULL;
