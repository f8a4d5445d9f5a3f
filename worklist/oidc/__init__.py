"""Logging in at the hospital's own provider: OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636)."""
