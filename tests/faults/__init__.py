"""Fault injection: the system calls of a running worker and of a running master fail, one at a time, under clients."""
