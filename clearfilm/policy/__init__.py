"""The triage policy: which studies may be read later, who may change that, and when it stops by itself."""
