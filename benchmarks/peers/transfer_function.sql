-- pgbench: a transfer in one call. Variables: senders (1 for a hot wallet), wallets.
\set sender random(1, :senders)
\set step random(1, :wallets - 1)
\set receiver (:sender + :step - 1) % :wallets + 1
\set high random(1, 9223372036854775807)
\set low random(1, 9223372036854775807)
SELECT bench.transfer(bench.wallet_id(:sender), bench.wallet_id(:receiver), bench.key(:high, :low));
