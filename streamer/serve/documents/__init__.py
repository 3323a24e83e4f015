"""Documents of the daemon's interfaces: OpenAPI for HTTP, AsyncAPI for WebSockets."""
