"""Access records and figures for statsd: what they look like, and how they leave a worker."""
