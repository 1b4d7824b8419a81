"""Certificates for the tests with TLS, made when they are needed."""

from __future__ import annotations

from pathlib import Path

import trustme


class Certificates:
    """Authorities and certificates for 127.0.0.1, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.strangers = trustme.CA(), trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.strangers_ca = str(folder / "strangers.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.strangers.cert_pem.write_to_path(self.strangers_ca)
        self.cert, self.key = self.issue("node", "127.0.0.1")

    def issue(self, name: str, host: str, authority: trustme.CA | None = None) -> tuple[str, str]:
        issued = (authority or self.authority).issue_cert(host)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        issued.private_key_pem.write_to_path(str(key))
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return str(cert), str(key)

    def node_options(self) -> dict[str, str]:
        return {"tls_cert": self.cert, "tls_key": self.key}
