"""What tests stand on: real machines, real processes and real clients, waited for by events."""
