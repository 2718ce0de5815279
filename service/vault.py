"""The vault: what lets the service in elsewhere, encrypted where it is stored."""

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Vault:
    """Keeps signing secrets and credentials encrypted under a key that is derived from the service's own secret."""

    def __init__(self, secret: bytes) -> None:
        key = HKDF(SHA256(), length=32, salt=None, info=b"plumbline webhook secrets").derive(secret)
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def lock(self, text: str) -> bytes:
        """Return what may be stored."""
        return self._fernet.encrypt(text.encode())

    def unlock(self, stored: bytes) -> str:
        """Return what was stored."""
        return self._fernet.decrypt(stored).decode()
