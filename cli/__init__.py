"""The one command `clearfilm`: thin, imports lazily."""
