"""`make bench`: this system beside its peers, measured in one run. docs/performance.md says how and why."""
