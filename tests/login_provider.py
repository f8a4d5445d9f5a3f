"""A real provider of logins on a free port: oidc-provider-mock, behind a layer that is stricter, or wicked."""

from __future__ import annotations

import base64
import hashlib
import io
import ipaddress
import json
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import authlib.deprecate  # noqa: F401 - sets filters of its own, which must come first
import werkzeug.serving
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

with warnings.catch_warnings():
    # It uses a module of Authlib that will be another package one day.
    warnings.simplefilter("ignore")
    import oidc_provider_mock

CLIENT_ID, SECRET = "clearfilm-node", "s3cret / with + odd : signs"


@dataclass
class LoginProvider:
    """Insists on PKCE and on the client's secret, and does what a test tells it to.

    Parameters
    ----------
    users : dict
        Claims by subject.
    """

    users: dict[str, dict[str, Any]]
    port: int = 0
    change_claims: Callable[[dict[str, Any]], None] | None = None
    forge: Callable[[dict[str, Any]], str] | None = None  # the whole ID token, from its claims
    keys: list[RSAKey] = field(default_factory=list)  # instead of its own; the first one signs
    discovery: dict[str, Any] = field(default_factory=dict)  # what the discovery document says otherwise
    is_away: bool = False
    hold: threading.Event | None = None  # answers wait for it
    certificate: tuple[str, str] | None = None  # files of certificate and key
    asked: list[str] = field(default_factory=list)
    _challenges: dict[str, str] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        request = Request(dict(environ, **{"wsgi.input": io.BytesIO(body)}))
        self.asked.append(request.path)
        if self.hold is not None:
            self.hold.wait(30)
        if self.is_away:
            return Response("away", 503)(environ, start_response)
        if request.path == "/oauth2/token" and (refused := self._objection(request)):
            return Response(json.dumps({"error": refused}), 400, content_type="application/json")(
                environ, start_response
            )
        parts, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        answer = Response(b"".join(parts), status, headers)
        self._note_challenge(request, answer)
        if answer.status_code == 200:
            self._misbehave(request.path, answer)
        return answer(environ, start_response)

    def _objection(self, request: Request) -> str | None:
        form = request.form
        sent = request.authorization
        # RFC 6749 2.3.1
        known = parse_qs(f"u={sent.username}&p={sent.password}") if sent and sent.type == "basic" else {}
        if (known.get("u"), known.get("p")) != ([CLIENT_ID], [SECRET]):
            return "invalid_client"
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return None if self._challenges.get(form.get("code", "")) == challenge else "invalid_grant"

    def _note_challenge(self, request: Request, answer: Response) -> None:
        if request.path != "/oauth2/authorize" or answer.status_code != 302:
            return
        code = parse_qs(urlsplit(answer.headers["location"]).query).get("code")
        if code and request.args.get("code_challenge_method") == "S256":
            self._challenges[code[0]] = request.args["code_challenge"]

    def _misbehave(self, path: str, answer: Response) -> None:
        if path == "/jwks" and self.keys:
            answer.set_data(json.dumps(KeySet(list(self.keys)).as_dict(private=False)))
        if path == "/.well-known/openid-configuration":
            answer.set_data(json.dumps(json.loads(answer.get_data()) | self.discovery))
        if path == "/oauth2/token" and (self.forge or self.change_claims or self.keys):
            tokens = json.loads(answer.get_data())
            claims = unsigned_claims(tokens["id_token"])
            if self.change_claims:
                self.change_claims(claims)
            tokens["id_token"] = self.forge(claims) if self.forge else signed(claims, self.keys[0])
            answer.set_data(json.dumps(tokens))

    def behave(self) -> None:
        """Again as at the beginning."""
        self.change_claims = self.forge = self.hold = None
        self.keys, self.discovery, self.is_away, self.asked = [], {}, False, []

    @contextmanager
    def serve(self) -> Iterator[LoginProvider]:
        predefined = [oidc_provider_mock.User(sub=sub, claims=claims) for sub, claims in self.users.items()]
        self._app = oidc_provider_mock.app(require_nonce=True, user_claims=predefined)
        server = werkzeug.serving.make_server("127.0.0.1", self.port, self, threaded=True, ssl_context=self.certificate)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            if self.hold is not None:
                self.hold.set()
            server.shutdown()
            thread.join(30)
            server.server_close()


def make_certificate(folder: Path) -> tuple[str, str]:
    """Files of a certificate for 127.0.0.1 that signed itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider of the test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "provider.pem", folder / "provider.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(files[0]), str(files[1])


def new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


def signed(claims: dict[str, Any], key: Any, alg: str = "RS256", **header: Any) -> str:
    return jwt.encode({"alg": alg, "kid": key.kid, **header}, claims, key, algorithms=[alg])


def unsigned_claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found
