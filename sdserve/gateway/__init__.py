"""Between HTTP and an application: WSGI and ASGI, proxies that are believed, and how the application is found."""
