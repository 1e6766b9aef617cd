"""The master's decisions, driven through histories that no test with real processes could wait for."""
