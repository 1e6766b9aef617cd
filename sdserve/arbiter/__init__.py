"""The master process: supervises workers, talks to systemd, and is the only part that forks or execs."""
