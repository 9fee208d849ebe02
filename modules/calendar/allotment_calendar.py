"""Radicale with two repairs to version 3.5.3 and a page that knows the portal, as a program and as its plugins."""

import hashlib
import hmac
import os
import pathlib
import time

import radicale.app
import radicale.server
from radicale.auth import ldap
from radicale.web import internal


class Auth(ldap.Auth):
    """Login by LDAP that remembers for a minute who gave the right password.

    A program sends the password with each of its many requests, and each check costs the directory an argon2 hash.
    Radicale's own cache_logins does this too, but when it forgets old failures it goes on with another user's name.
    """

    SECONDS = 60

    def __init__(self, configuration):
        super().__init__(configuration)
        self._key = os.urandom(32)
        self._right = {}  # login: (digest of the password, until when, user)

    def _login(self, login, password):
        digest = hashlib.blake2b(password.encode(), key=self._key).digest()
        known, until, user = self._right.get(login, (b"", 0, ""))
        if time.monotonic() < until and hmac.compare_digest(known, digest):
            return user
        user = super()._login(login, password)
        if user:
            self._right[login] = (digest, time.monotonic() + self.SECONDS, user)
        return user


class Application(radicale.app.Application):
    """Takes script_name without a slash after it for its root, where Radicale fails."""

    def _handle_request(self, environ):
        if environ.get("PATH_INFO") == self._script_name:
            environ["PATH_INFO"] += "/"
        return super()._handle_request(environ)


class Web(internal.Web):
    """The page for browsers, with a script that logs in whoever is logged in to the portal."""

    SCRIPT = pathlib.Path("/usr/share/calendar/sso.js")
    LOADED = (b'<script src="fn.js"></script>', b'<script src="fn.js"></script>\n    <script src="sso.js"></script>')

    def get(self, environ, base_prefix, path, user):
        if path == "/.web/sso.js":
            return 200, {"Content-Type": "application/javascript; charset=utf-8"}, self.SCRIPT.read_bytes()
        status, headers, body = super().get(environ, base_prefix, path, user)
        if path in ("/.web/", "/.web/index.html"):
            body = body.replace(*self.LOADED)
        return status, headers, body


if __name__ == "__main__":
    from radicale.__main__ import run

    radicale.server.Application = Application
    run()
