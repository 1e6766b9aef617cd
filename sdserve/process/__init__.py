"""Sockets, pidfiles, pidfds, shared memory, output: mechanism of a Unix process, without policy."""
