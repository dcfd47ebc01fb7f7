"""The generators of load: wrk over HTTP, pgbench beside it."""
