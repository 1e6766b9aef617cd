"""The comparison with other servers: see docs/measurements/performance.md."""
