"""The load generators: wrk for HTTP, pgbench for the database alone."""
