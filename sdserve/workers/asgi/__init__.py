"""The worker for ASGI applications."""
