"""`anyform serve`: durable jobs over `api.generate`, a REST API, and the page in `static/` (docs/serve.md)."""
