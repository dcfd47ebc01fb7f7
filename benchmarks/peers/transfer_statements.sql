-- pgbench: a transfer as an application sends it, statement by statement, with the same rows as the wallet API.
-- Variables: senders (1 for a hot wallet), wallets.
\set sender random(1, :senders)
\set step random(1, :wallets - 1)
\set receiver (:sender + :step - 1) % :wallets + 1
\set high random(1, 9223372036854775807)
\set low random(1, 9223372036854775807)
BEGIN;
SELECT pg_try_advisory_xact_lock(hashtextextended(wanted.key, 1)), stored.reply_body
FROM (VALUES (bench.key(:high, :low))) AS wanted (key) LEFT JOIN wallet.idempotency_keys AS stored USING (key);
-- An application would make these values itself; pgbench can't make UUIDs.
SELECT uuidv7() AS transaction_id, uuidv7() AS event_id, clock_timestamp() AS created_at,
    max(user_id) FILTER (WHERE id = bench.wallet_id(:sender)) AS sender_user,
    max(balance_minor) FILTER (WHERE id = bench.wallet_id(:sender)) - 1 AS sender_balance,
    max(version) FILTER (WHERE id = bench.wallet_id(:sender)) + 1 AS sender_version,
    max(user_id) FILTER (WHERE id = bench.wallet_id(:receiver)) AS receiver_user,
    max(balance_minor) FILTER (WHERE id = bench.wallet_id(:receiver)) + 1 AS receiver_balance,
    max(version) FILTER (WHERE id = bench.wallet_id(:receiver)) + 1 AS receiver_version
FROM (
    SELECT id, user_id, balance_minor, version FROM wallet.wallets
    WHERE id IN (bench.wallet_id(:sender), bench.wallet_id(:receiver)) ORDER BY id FOR UPDATE
) AS locked \gset
UPDATE wallet.wallets
SET balance_minor = change.balance_minor, version = change.version, updated_at = :created_at
FROM (
    VALUES
        (bench.wallet_id(:sender), :sender_balance::bigint, :sender_version::bigint),
        (bench.wallet_id(:receiver), :receiver_balance::bigint, :receiver_version::bigint)
) AS change (id, balance_minor, version)
WHERE wallets.id = change.id;
INSERT INTO wallet.wallet_transactions (
    transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor, currency,
    balance_after_minor, held_after_minor, metadata, created_at
) VALUES
    (:transaction_id, 1, bench.wallet_id(:sender), :sender_version, bench.wallet_id(:receiver), 'TRANSFER', -1,
        'EUR', :sender_balance, 0, '{}', :created_at),
    (:transaction_id, 2, bench.wallet_id(:receiver), :receiver_version, bench.wallet_id(:sender), 'TRANSFER', 1,
        'EUR', :receiver_balance, 0, '{}', :created_at);
INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
VALUES (
    :event_id, bench.wallet_id(:sender), bench.lane(bench.wallet_id(:sender)), 'TRANSFER_DONE',
    bench.event(
        :event_id, :created_at, 'TRANSFER_DONE', bench.transaction(:transaction_id),
        bench.change(bench.wallet_id(:sender), :sender_user, :sender_version, :sender_balance, 'out') || ','
        || bench.change(bench.wallet_id(:receiver), :receiver_user, :receiver_version, :receiver_balance, 'in'),
        bench.amount(1)
    ), :created_at
);
INSERT INTO wallet.idempotency_keys (key, request_hash, reply_status, reply_headers, reply_body)
VALUES (
    bench.key(:high, :low), bench.request_hash(bench.wallet_id(:sender), bench.wallet_id(:receiver), 1), 200,
    bench.etag(:sender_version),
    bench.reply(
        :transaction_id, bench.wallet_id(:sender), bench.wallet_id(:receiver), 1, :sender_balance, :sender_version,
        :created_at
    )
);
COMMIT;
