"""Radicale's login by LDAP, which remembers for a minute who gave the right password.

A client sends the password with each of its many requests, and each check costs the directory an argon2 hash. Radicale's
own cache_logins does this too, but up to 3.5.3 it can take one user for another when it forgets old failures.
"""

import hashlib
import hmac
import os
import time

from radicale.auth import ldap

SECONDS = 60


class Auth(ldap.Auth):
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
            self._right[login] = (digest, time.monotonic() + SECONDS, user)
        return user
