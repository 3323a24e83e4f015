"""What the daemon says of its own interfaces: an OpenAPI document of HTTP, an AsyncAPI document of WebSockets."""
