"""The listener: association policy, C-ECHO, C-STORE, durable storage. Never imports torch."""
