-- Every statement of the account service. Ids compare by bytes, as their columns are declared.
-- Statements of the posting path are planned once (`force_generic_plan`), so none of them may need
-- another plan for another size of batch.

-- name: lock_holds
-- The open holds that a batch posts, voids or expires, locked in the order of their ids, after the
-- book's day. A hold that another writer ended while this waited is not returned.
WITH day AS MATERIALIZED (
    SELECT business_date FROM business_dates WHERE book = $1 FOR SHARE
), locked AS MATERIALIZED (
    SELECT id, tenant_id, mode, debit_account_id, credit_account_id, currency_code,
           held_minor, posted_minor, expires_at
    FROM holds
    WHERE book = $1 AND id = ANY($2::text[])
    ORDER BY id
    FOR UPDATE
)
SELECT l.id, l.tenant_id, l.mode, l.debit_account_id, l.credit_account_id, l.currency_code,
       l.held_minor, l.posted_minor, l.expires_at
FROM day CROSS JOIN locked l;

-- name: lock_accounts
-- The business date under a shared lock, then the accounts of a batch locked in the order of their
-- ids; a last row has the date and the clock after all locks. No row: the book is not open. Batches
-- that only append to the buffer of such an account are not kept out (`share_accounts`). Nothing is
-- read but what booking needs: for each column of an answer both sides spend time.
WITH day AS MATERIALIZED (
    SELECT book, business_date FROM business_dates WHERE book = $1 FOR SHARE
), locked AS MATERIALIZED (
    SELECT id, tenant_id, mode, currency_code, normal_side, status, may_go_negative,
           credit_limit_minor, court_frozen_minor, debits_posted_minor, credits_posted_minor,
           debits_pending_minor, credits_pending_minor, version, is_buffered
    FROM accounts
    WHERE book = (SELECT book FROM day) AND id = ANY($2::text[])
    ORDER BY id
    FOR NO KEY UPDATE
)
SELECT id, tenant_id, mode, currency_code, normal_side, status, may_go_negative,
       credit_limit_minor, court_frozen_minor, debits_posted_minor, credits_posted_minor,
       debits_pending_minor, credits_pending_minor, version, is_buffered,
       NULL::date AS business_date, NULL::timestamptz AS now
FROM locked
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       business_date, clock_timestamp()
FROM day;

-- name: share_accounts
-- Accounts to whose buffers a batch appends, kept from changing status, limits or buffering. Other
-- batches may share them, post to them, and drain them meanwhile, so their sums are of no use.
-- Whoever shares a row does not queue for it; who takes one of these numbers does, so that a change
-- gets its turn however many batches follow each other (`queue_for_account`). They are few, because
-- the server has little room for them. A last row has the clock after all locks: who waited for all
-- that book on an account has then seen whatever is booked before that.
WITH queue AS MATERIALIZED (
    SELECT count(pg_advisory_xact_lock_shared(1651861094, hashtext(q.id) & 63)) AS numbers
    FROM unnest($2::text[]) AS q (id)
), shared AS MATERIALIZED (
    SELECT a.id, a.tenant_id, a.mode, a.currency_code, a.normal_side, a.status, a.may_go_negative,
           a.credit_limit_minor, a.court_frozen_minor, a.debits_posted_minor,
           a.credits_posted_minor, a.debits_pending_minor, a.credits_pending_minor, a.version,
           a.is_buffered
    FROM accounts a
    WHERE a.book = $1 AND a.id = ANY($2::text[]) AND (SELECT numbers FROM queue) > 0
    ORDER BY a.id
    FOR KEY SHARE OF a
)
SELECT id, tenant_id, mode, currency_code, normal_side, status, may_go_negative,
       credit_limit_minor, court_frozen_minor, debits_posted_minor, credits_posted_minor,
       debits_pending_minor, credits_pending_minor, version, is_buffered, NULL::timestamptz AS now
FROM shared
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       clock_timestamp();

-- name: read_transfers
-- What is kept under ids. The bounds let the server pass over months that hold none of them.
SELECT id, kind, debit_account_id, credit_account_id, currency_code, amount_minor, pending_id,
       keep_rest, timeout_seconds, linked, forced, balancing_debit, balancing_credit, movement,
       reference_id, value_on, biz_trace_id, tenant_id, mode, merchant_id, actor,
       status, reason, reason_metadata, booked_minor, business_date, booked_at, redirected_to,
       debit_version, credit_version, is_buffered
FROM transfers
WHERE book = $1 AND id = ANY($2::text[]) AND id >= $3 AND id <= $4;

-- name: read_fates
-- What became of pending transfers that hold nothing any more: how they ended, or that they never
-- held anything.
SELECT pending_id AS id, fate
FROM resolutions
WHERE book = $1 AND pending_id = ANY($2::text[]) AND pending_id >= $3 AND pending_id <= $4
UNION ALL
SELECT id,
       CASE WHEN kind <> 'PENDING' THEN 'NOT_PENDING'
            WHEN debit_account_id = '' THEN 'TOMBSTONE'
            ELSE 'REFUSED' END
FROM transfers
WHERE book = $1 AND id = ANY($2::text[]) AND id >= $3 AND id <= $4
  AND (kind <> 'PENDING' OR status = 'REFUSED');

-- name: write_batch
-- Everything that a batch changes, set by set, in one statement. Returns how many transfers were
-- inserted: fewer than given means that another writer took an id, and nothing may be committed.
-- Columns come as texts (`store/columns.py`): words joined by $4, numbers and flags as literals of
-- arrays, which are empty where all of a column are 0, false or the empty text. Arrays are taken
-- apart side by side in a SELECT list: in FROM, each would be kept as a table of its own first.
WITH kept AS (
    INSERT INTO transfers (
        book, booked_at, business_date,
        id, kind, debit_account_id, credit_account_id, currency_code, amount_minor, pending_id,
        keep_rest, timeout_seconds, linked, forced, balancing_debit, balancing_credit, movement,
        reference_id, value_on, biz_trace_id, tenant_id, mode, merchant_id, actor,
        status, reason, reason_metadata, booked_minor, redirected_to, debit_version,
        credit_version, is_buffered
    )
    SELECT $1, $2, $3,
           t.id, t.kind, coalesce(t.debit_account_id, ''), coalesce(t.credit_account_id, ''),
           coalesce(t.currency_code, ''), coalesce(t.amount_minor, 0), coalesce(t.pending_id, ''),
           coalesce(t.keep_rest, false), coalesce(t.timeout_seconds, 0),
           coalesce(t.linked, false), coalesce(t.forced, false),
           coalesce(t.balancing_debit, false), coalesce(t.balancing_credit, false), t.movement,
           t.reference_id, nullif(t.value_on, '')::date, coalesce(t.biz_trace_id, ''),
           t.tenant_id, t.mode, coalesce(t.merchant_id, ''), coalesce(t.actor, ''),
           t.status, nullif(t.reason, ''), t.reason_metadata, coalesce(t.booked_minor, 0),
           nullif(t.redirected_to, ''), coalesce(t.debit_version, 0),
           coalesce(t.credit_version, 0), coalesce(t.is_buffered, false)
    FROM (
        SELECT unnest(string_to_array($5, $4)) AS id, unnest(string_to_array($6, $4)) AS kind,
               unnest(string_to_array($7, $4)) AS debit_account_id,
               unnest(string_to_array($8, $4)) AS credit_account_id,
               unnest(string_to_array($9, $4)) AS currency_code,
               unnest($10::text::bigint[]) AS amount_minor,
               unnest(string_to_array($11, $4)) AS pending_id,
               unnest($12::text::boolean[]) AS keep_rest,
               unnest($13::text::integer[]) AS timeout_seconds,
               unnest($14::text::boolean[]) AS linked, unnest($15::text::boolean[]) AS forced,
               unnest($16::text::boolean[]) AS balancing_debit,
               unnest($17::text::boolean[]) AS balancing_credit,
               unnest(string_to_array($18, $4)) AS movement,
               unnest(string_to_array($19, $4)) AS reference_id,
               unnest(string_to_array($20, $4)) AS value_on,
               unnest(string_to_array($21, $4)) AS biz_trace_id,
               unnest(string_to_array($22, $4)) AS tenant_id,
               unnest(string_to_array($23, $4)) AS mode,
               unnest(string_to_array($24, $4)) AS merchant_id,
               unnest(string_to_array($25, $4)) AS actor,
               unnest(string_to_array($26, $4)) AS status,
               unnest(string_to_array($27, $4)) AS reason, unnest($28::jsonb[]) AS reason_metadata,
               unnest($29::text::bigint[]) AS booked_minor,
               unnest(string_to_array($30, $4)) AS redirected_to,
               unnest($31::text::bigint[]) AS debit_version,
               unnest($32::text::bigint[]) AS credit_version,
               unnest($33::text::boolean[]) AS is_buffered
    ) AS t
    ON CONFLICT DO NOTHING
    RETURNING 1
), lines AS (
    INSERT INTO entries (
        book, booked_at, business_date,
        account_id, version, transfer_id, is_debit, amount_minor, debits_posted_minor,
        credits_posted_minor
    )
    SELECT $1, $2, $3, e.account_id, e.version, e.transfer_id, coalesce(e.is_debit, false),
           e.amount_minor, coalesce(e.debits_posted_minor, 0), coalesce(e.credits_posted_minor, 0)
    FROM (
        SELECT unnest(string_to_array($34, $4)) AS account_id,
               unnest($35::text::bigint[]) AS version,
               unnest(string_to_array($36, $4)) AS transfer_id,
               unnest($37::text::boolean[]) AS is_debit,
               unnest($38::text::bigint[]) AS amount_minor,
               unnest($39::text::bigint[]) AS debits_posted_minor,
               unnest($40::text::bigint[]) AS credits_posted_minor
    ) AS e
), sums AS MATERIALIZED (
    -- Apart, so that each account is found by its key, also while nothing is known of the table.
    SELECT $1::smallint AS book, f.*
    FROM (
        SELECT unnest(string_to_array($41, $4)) AS id, unnest($42::text::bigint[]) AS debits_posted,
               unnest($43::text::bigint[]) AS credits_posted,
               unnest($44::text::bigint[]) AS debits_pending,
               unnest($45::text::bigint[]) AS credits_pending,
               unnest($46::text::bigint[]) AS version
    ) AS f
), folded AS (
    UPDATE accounts a
    SET debits_posted_minor = coalesce(f.debits_posted, 0),
        credits_posted_minor = coalesce(f.credits_posted, 0),
        debits_pending_minor = coalesce(f.debits_pending, 0),
        credits_pending_minor = coalesce(f.credits_pending, 0),
        version = f.version, updated_at = $2
    FROM sums f
    WHERE a.book = f.book AND a.id = f.id
)
SELECT count(*) FROM kept;

-- name: write_movement
-- What `write_batch` writes for a batch of one movement: its row, two lines, two accounts. Returns
-- how many transfers were inserted: none means that another writer took the id.
WITH kept AS (
    INSERT INTO transfers (
        book, booked_at, business_date,
        id, kind, debit_account_id, credit_account_id, currency_code, amount_minor, pending_id,
        keep_rest, timeout_seconds, linked, forced, balancing_debit, balancing_credit, movement,
        reference_id, value_on, biz_trace_id, tenant_id, mode, merchant_id, actor,
        booked_minor, redirected_to, debit_version, credit_version, status, is_buffered
    )
    VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27, $28, 'BOOKED', false
    )
    ON CONFLICT DO NOTHING
    RETURNING 1
), lines AS (
    INSERT INTO entries (
        book, booked_at, business_date, transfer_id, amount_minor,
        is_debit, account_id, version, debits_posted_minor, credits_posted_minor
    )
    VALUES ($1, $2, $3, $4, $25, true, $29, $27, $30, $31),
           ($1, $2, $3, $4, $25, false, $34, $28, $35, $36)
), debited AS (
    UPDATE accounts
    SET debits_posted_minor = $30, credits_posted_minor = $31, debits_pending_minor = $32,
        credits_pending_minor = $33, version = $27, updated_at = $2
    WHERE book = $1 AND id = $29
), credited AS (
    UPDATE accounts
    SET debits_posted_minor = $35, credits_posted_minor = $36, debits_pending_minor = $37,
        credits_pending_minor = $38, version = $28, updated_at = $2
    WHERE book = $1 AND id = $34
)
SELECT count(*) FROM kept;

-- name: append_credits
-- Credits of buffered accounts, in the order of the batch.
INSERT INTO buffered_credits (
    book, booked_at, business_date, account_id, transfer_id, amount_minor
)
SELECT $1, $2, $3, c.*
FROM unnest($4::text[], $5::text[], $6::bigint[]) AS c;

-- name: write_holds
-- What a batch does to holds: opened, lessened by part-posts, ended, and how they ended.
WITH opened AS (
    INSERT INTO holds (
        book, id, tenant_id, mode, debit_account_id, credit_account_id, currency_code,
        held_minor, posted_minor, expires_at
    )
    SELECT $1, h.*
    FROM unnest(
        $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[],
        $10::bigint[], $11::timestamptz[]
    ) AS h
), parts AS MATERIALIZED (
    SELECT $1::smallint AS book, c.*
    FROM unnest($12::text[], $13::bigint[], $14::bigint[]) AS c (id, held_minor, posted_minor)
), lessened AS (
    UPDATE holds h
    SET held_minor = c.held_minor, posted_minor = c.posted_minor
    FROM parts c
    WHERE h.book = c.book AND h.id = c.id
), ended AS (
    DELETE FROM holds WHERE book = $1 AND id = ANY($15::text[])
)
INSERT INTO resolutions (book, resolved_at, pending_id, fate, resolved_by, posted_minor)
SELECT $1, $2, r.*
FROM unnest($16::text[], $17::text[], $18::text[], $19::bigint[]) AS r;

-- name: list_due_holds
-- Holds whose time is over by the database's clock, the oldest first; to be expired.
SELECT id, tenant_id, mode, debit_account_id, credit_account_id, currency_code,
       held_minor, posted_minor, expires_at
FROM holds
WHERE book = $1 AND expires_at <= clock_timestamp()
ORDER BY expires_at
LIMIT $2;

-- name: insert_accounts
-- Opens accounts that are not open yet.
INSERT INTO accounts (
    book, version, created_at, updated_at, status,
    id, tenant_id, mode, owner_id, merchant_id, kind, currency_code, normal_side,
    may_go_negative, credit_limit_minor, is_buffered
)
SELECT $1, 1, now(), now(), 'NORMAL', a.*
FROM unnest(
    $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::boolean[], $11::bigint[], $12::boolean[]
) AS a (id)
ORDER BY a.id
ON CONFLICT DO NOTHING;

-- name: read_accounts
-- Accounts by id, with what waits in their buffers.
SELECT a.id, a.tenant_id, a.mode, a.currency_code, a.normal_side, a.status, a.may_go_negative,
       a.credit_limit_minor, a.court_frozen_minor, a.debits_posted_minor, a.credits_posted_minor,
       a.debits_pending_minor, a.credits_pending_minor, a.version, a.is_buffered,
       a.owner_id, a.merchant_id, a.kind, a.created_at, a.updated_at,
       CASE WHEN a.is_buffered
            THEN (
                SELECT coalesce(sum(b.amount_minor), 0)::bigint
                FROM buffered_credits b
                WHERE b.book = a.book AND b.account_id = a.id
            )
            ELSE 0
       END AS buffered_minor
FROM accounts a
WHERE a.book = $1 AND a.id = ANY($2::text[]);

-- name: queue_for_account
-- Before `lock_account`: from here on, batches that would share the account wait.
SELECT pg_advisory_xact_lock(1651861094, hashtext($1) & 63);

-- name: lock_account
-- One account, to change its status, limits or buffering: nothing is posted or appended until then.
SELECT id, tenant_id, mode, currency_code, normal_side, status, may_go_negative,
       credit_limit_minor, court_frozen_minor, debits_posted_minor, credits_posted_minor,
       debits_pending_minor, credits_pending_minor, version, is_buffered,
       owner_id, merchant_id, kind, created_at, updated_at
FROM accounts
WHERE book = $1 AND id = $2
FOR UPDATE;

-- name: list_accounts_of_owner
-- The accounts of one owner, in every book, with what waits in their buffers.
SELECT a.id, a.tenant_id, a.mode, a.currency_code, a.normal_side, a.status, a.may_go_negative,
       a.credit_limit_minor, a.court_frozen_minor, a.debits_posted_minor, a.credits_posted_minor,
       a.debits_pending_minor, a.credits_pending_minor, a.version, a.is_buffered,
       a.owner_id, a.merchant_id, a.kind, a.created_at, a.updated_at,
       CASE WHEN a.is_buffered
            THEN (
                SELECT coalesce(sum(b.amount_minor), 0)::bigint
                FROM buffered_credits b
                WHERE b.book = a.book AND b.account_id = a.id
            )
            ELSE 0
       END AS buffered_minor
FROM accounts a
WHERE a.owner_id = $1 AND a.tenant_id = $2 AND a.mode = $3
ORDER BY a.kind, a.currency_code, a.id;

-- name: update_account
-- A new status, new limits or another buffering of a locked account.
UPDATE accounts
SET status = $3, credit_limit_minor = $4, court_frozen_minor = $5, is_buffered = $6,
    version = version + 1, updated_at = clock_timestamp()
WHERE book = $1 AND id = $2
RETURNING version, updated_at;

-- name: lock_buffer
-- An account that shall be drained, kept from other drains and from postings, not from appending.
SELECT 1 FROM accounts WHERE book = $1 AND id = $2 FOR NO KEY UPDATE;

-- name: drain_buffer
-- Credits of a locked account's buffer become entries, in the order in which they were appended, as
-- long as the account's sum stays below $4. The entries tell the drain's time, and when their credit
-- was appended. Returns how many there were; no row when there were none. Nothing is joined to the
-- buffer, which the server believes to be as empty as it often is.
WITH account AS MATERIALIZED (
    SELECT debits_posted_minor, credits_posted_minor, version,
           $4 - credits_posted_minor - credits_pending_minor AS room, clock_timestamp() AS now
    FROM accounts
    WHERE book = $1 AND id = $2
), oldest AS MATERIALIZED (
    SELECT place, amount_minor
    FROM buffered_credits
    WHERE book = $1 AND account_id = $2
    ORDER BY place
    LIMIT $3
), due AS MATERIALIZED (
    SELECT place, sum(amount_minor) OVER (ORDER BY place) AS total FROM oldest
), taken AS (
    DELETE FROM buffered_credits
    WHERE book = $1 AND account_id = $2
      AND place <= (SELECT max(place) FROM due WHERE total <= (SELECT room FROM account))
    RETURNING place, transfer_id, business_date, booked_at, amount_minor
), placed AS MATERIALIZED (
    SELECT transfer_id, business_date, booked_at, amount_minor,
           row_number() OVER (ORDER BY place) AS step,
           sum(amount_minor) OVER (ORDER BY place) AS total
    FROM taken
), lines AS (
    INSERT INTO entries (
        book, booked_at, business_date, account_id, version, transfer_id, is_debit, amount_minor,
        debits_posted_minor, credits_posted_minor, appended_at
    )
    SELECT $1, a.now, p.business_date, $2, a.version + p.step, p.transfer_id, false,
           p.amount_minor, a.debits_posted_minor, a.credits_posted_minor + p.total, p.booked_at
    FROM placed p CROSS JOIN account a
)
UPDATE accounts
SET credits_posted_minor = s.credits_posted, version = s.version, updated_at = s.now
FROM (
    SELECT max(p.step) AS credits, a.credits_posted_minor + max(p.total) AS credits_posted,
           a.version + max(p.step) AS version, a.now
    FROM account a CROSS JOIN placed p
    GROUP BY a.credits_posted_minor, a.version, a.now
) s
WHERE book = $1 AND id = $2
RETURNING s.credits;

-- name: list_buffers
-- Accounts of a book in whose buffers something waits.
SELECT DISTINCT account_id FROM buffered_credits WHERE book = $1 ORDER BY account_id LIMIT $2;

-- name: list_buffers_after
-- Those whose ids come after one, for whoever drains page by page while others append.
SELECT DISTINCT account_id FROM buffered_credits
WHERE book = $1 AND account_id > $2 ORDER BY account_id LIMIT $3;

-- name: insert_account_change
-- History: what an account's status or limits were and became, by whom and why.
INSERT INTO account_changes (
    book, account_id, request_id, version, changed_at, verb, before, after, actor, reason,
    biz_trace_id
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: find_account_change
-- The change that a request made, for its repeats.
SELECT verb, version, after, reason, changed_at
FROM account_changes
WHERE book = $1 AND account_id = $2 AND request_id = $3;

-- name: list_account_changes
-- The history of one account, oldest first.
SELECT request_id, version, changed_at, verb, before, after, actor, reason, biz_trace_id
FROM account_changes
WHERE book = $1 AND account_id = $2
ORDER BY version;

-- name: list_transfers_by_id
-- The journal in the order of ids after one, for facts.
SELECT id, kind, debit_account_id, credit_account_id, currency_code, amount_minor, pending_id,
       keep_rest, timeout_seconds, linked, forced, balancing_debit, balancing_credit, movement,
       reference_id, value_on, biz_trace_id, tenant_id, mode, merchant_id, actor,
       status, reason, reason_metadata, booked_minor, business_date, booked_at, redirected_to,
       debit_version, credit_version, is_buffered
FROM transfers
WHERE book = $1 AND id > $2
ORDER BY id
LIMIT $3;

-- name: read_business_date
-- The business date of a book.
SELECT business_date FROM business_dates WHERE book = $1;

-- name: insert_business_date
-- The first business date of a book, and the day that it opens.
WITH begun AS (
    INSERT INTO business_dates (book, business_date, advanced_at, actor)
    VALUES ($1, $2, clock_timestamp(), $3)
    ON CONFLICT DO NOTHING
    RETURNING book, business_date, advanced_at, actor
), opened AS (
    INSERT INTO business_days (book, business_date, opened_at, state)
    SELECT book, business_date, advanced_at, 'OPEN' FROM begun
)
INSERT INTO business_day_changes (
    book, business_date, changed_at, from_state, to_state, actor, cause
)
SELECT book, business_date, advanced_at, '', 'OPEN', actor, 'the book was opened' FROM begun;

-- name: lock_business_date
-- The business date of a book, so that no posting is under way until it has moved.
SELECT business_date FROM business_dates WHERE book = $1 FOR UPDATE;

-- name: update_business_date
-- The business date of a locked book moves forward: one day is cut, the next is open. No posting
-- is under way, so every transfer of the day was written in a transaction that has ended, and
-- transactions that have ended are below `pg_snapshot_xmax` of a snapshot taken now.
WITH moved AS (
    UPDATE business_dates
    SET business_date = $2, advanced_at = clock_timestamp(), actor = $3
    WHERE book = $1
    RETURNING book, business_date, advanced_at, actor
), cut AS (
    UPDATE business_days d
    SET state = 'CUTTING', cut_at = m.advanced_at,
        watermark = (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + n.shift)::text::xid8
    FROM moved m CROSS JOIN journal_numbering n
    WHERE d.book = m.book AND d.state = 'OPEN'
    RETURNING d.book, d.business_date
), opened AS (
    INSERT INTO business_days (book, business_date, opened_at, begun_in, state)
    SELECT m.book, m.business_date, m.advanced_at,
        (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + n.shift)::text::xid8, 'OPEN'
    FROM moved m CROSS JOIN journal_numbering n
)
INSERT INTO business_day_changes (
    book, business_date, changed_at, from_state, to_state, actor, cause
)
SELECT c.book, c.business_date, m.advanced_at, 'OPEN', 'CUTTING', m.actor, 'the day was cut'
FROM cut c CROSS JOIN moved m
UNION ALL
SELECT book, business_date, advanced_at, '', 'OPEN', actor, 'the day before was cut' FROM moved;

-- name: insert_business_date_change
-- History of the business date.
INSERT INTO business_date_changes (book, business_date, previous_date, advanced_at, actor)
VALUES ($1, $2, $3, clock_timestamp(), $4);

-- name: sum_accounts
-- All accounts of a world summed by currency and kind.
SELECT a.currency_code, a.kind, a.normal_side, count(*) AS accounts,
       sum(a.debits_posted_minor) AS debits_posted, sum(a.credits_posted_minor) AS credits_posted,
       sum(a.debits_pending_minor) AS debits_pending,
       sum(a.credits_pending_minor) AS credits_pending,
       sum(coalesce(b.amount, 0)) AS credits_buffered
FROM accounts a
LEFT JOIN (
    SELECT book, account_id, sum(amount_minor) AS amount
    FROM buffered_credits GROUP BY book, account_id
) b ON b.book = a.book AND b.account_id = a.id
WHERE a.tenant_id = $1 AND a.mode = $2
GROUP BY a.currency_code, a.kind, a.normal_side
ORDER BY a.currency_code, a.kind;

-- name: find_entry_differences
-- Accounts whose posted sums are not the sums of their entries.
SELECT a.id, a.debits_posted_minor, a.credits_posted_minor,
       coalesce(e.debits, 0) AS entry_debits, coalesce(e.credits, 0) AS entry_credits
FROM accounts a
LEFT JOIN (
    SELECT book, account_id,
           sum(amount_minor) FILTER (WHERE is_debit) AS debits,
           sum(amount_minor) FILTER (WHERE NOT is_debit) AS credits
    FROM entries
    GROUP BY book, account_id
) e ON e.book = a.book AND e.account_id = a.id
WHERE a.debits_posted_minor <> coalesce(e.debits, 0)
   OR a.credits_posted_minor <> coalesce(e.credits, 0)
ORDER BY a.id
LIMIT $1;

-- name: find_running_differences
-- Accounts whose last entry does not carry their posted sums: a line is missing or out of order.
SELECT a.id, a.debits_posted_minor, a.credits_posted_minor,
       l.debits_posted_minor AS entry_debits, l.credits_posted_minor AS entry_credits
FROM accounts a
JOIN (
    SELECT DISTINCT ON (book, account_id) book, account_id, debits_posted_minor,
           credits_posted_minor
    FROM entries
    ORDER BY book, account_id, version DESC
) l ON l.book = a.book AND l.account_id = a.id
WHERE a.debits_posted_minor <> l.debits_posted_minor
   OR a.credits_posted_minor <> l.credits_posted_minor
ORDER BY a.id
LIMIT $1;

-- name: find_hold_differences
-- Accounts whose pending sums are not the sums of their open holds.
SELECT a.id, a.debits_pending_minor, a.credits_pending_minor,
       coalesce(d.held, 0) AS held_debits, coalesce(c.held, 0) AS held_credits
FROM accounts a
LEFT JOIN (
    SELECT book, debit_account_id, sum(held_minor) AS held
    FROM holds GROUP BY book, debit_account_id
) d ON d.book = a.book AND d.debit_account_id = a.id
LEFT JOIN (
    SELECT book, credit_account_id, sum(held_minor) AS held
    FROM holds GROUP BY book, credit_account_id
) c ON c.book = a.book AND c.credit_account_id = a.id
WHERE a.debits_pending_minor <> coalesce(d.held, 0)
   OR a.credits_pending_minor <> coalesce(c.held, 0)
ORDER BY a.id
LIMIT $1;

-- name: find_unbalanced
-- Worlds and currencies in which debits and credits differ, posted (and buffered) or pending.
SELECT a.tenant_id, a.mode, a.currency_code,
       sum(a.debits_posted_minor) - sum(a.credits_posted_minor) - sum(coalesce(b.amount, 0))
           AS posted_difference,
       sum(a.debits_pending_minor) - sum(a.credits_pending_minor) AS pending_difference
FROM accounts a
LEFT JOIN (
    SELECT book, account_id, sum(amount_minor) AS amount
    FROM buffered_credits GROUP BY book, account_id
) b ON b.book = a.book AND b.account_id = a.id
GROUP BY a.tenant_id, a.mode, a.currency_code
HAVING sum(a.debits_posted_minor) <> sum(a.credits_posted_minor) + sum(coalesce(b.amount, 0))
    OR sum(a.debits_pending_minor) <> sum(a.credits_pending_minor)
ORDER BY a.tenant_id, a.mode, a.currency_code
LIMIT $1;

-- name: find_transfer_differences
-- Booked movements that have not exactly their two lines with the booked amount. A credit that
-- waits in a buffer counts as a line.
SELECT t.id, t.booked_minor, count(e.transfer_id) AS lines,
       coalesce(sum(e.amount_minor), 0) AS entered
FROM transfers t
LEFT JOIN (
    SELECT book, transfer_id, amount_minor FROM entries
    UNION ALL
    SELECT book, transfer_id, amount_minor FROM buffered_credits
) e ON e.book = t.book AND e.transfer_id = t.id
WHERE t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
GROUP BY t.book, t.id, t.booked_minor
HAVING count(e.transfer_id) <> 2 OR coalesce(sum(e.amount_minor), 0) <> 2 * t.booked_minor
ORDER BY t.id
LIMIT $1;

-- name: find_stray_buffers
-- Accounts that are not buffered, and have credits in a buffer that nothing would drain.
SELECT b.account_id AS id, sum(b.amount_minor) AS waiting
FROM buffered_credits b
JOIN accounts a ON a.book = b.book AND a.id = b.account_id
WHERE NOT a.is_buffered
GROUP BY b.account_id
ORDER BY b.account_id
LIMIT $1;

-- name: count_books
-- How many accounts and entries there are.
SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM entries) AS entries;
