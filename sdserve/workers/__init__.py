"""What a worker process is: how it boots, what it is told, when it is replaced. Its kinds are wsgi/ and asgi/."""
