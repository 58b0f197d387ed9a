"""Programs that speak PROTOCOL.md. `implementations.json` says how each is started."""
