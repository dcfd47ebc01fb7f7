"""`make bench`: measures this system and its peers in one run. docs/performance.md says how and why."""
