"""The only readers and writers of systemd's protocols."""
