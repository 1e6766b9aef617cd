"""The comparison with other servers: see docs/performance.md."""
