"""HTTP/1.1 without I/O: bytes in, requests and body pieces out; response heads as bytes. RFC 9110 and RFC 9112."""
