"""What both kinds of workers share: connections from accept to close, bodies, records, leaving."""
