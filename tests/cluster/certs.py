# SPDX-License-Identifier: Apache-2.0
"""The certificates of a throw-away control plane, made with openssl."""
import os
import subprocess

DAYS = "30"
SERVER_NAMES = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.0.0.1"


def openssl(*words, text=None):
    subprocess.run(["openssl", *words], input=text, text=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def key(path):
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
    os.chmod(path, 0o600)


def authority(folder, name, cn):
    key(f"{folder}/{name}.key")
    openssl("req", "-x509", "-new", "-key", f"{folder}/{name}.key", "-subj", f"/CN={cn}", "-days", DAYS, "-out", f"{folder}/{name}.crt")


def issue(folder, name, ca, subject, usage, names=None):
    """A key and a certificate NAME.key, NAME.crt signed by CA."""
    key(f"{folder}/{name}.key")
    extensions = f"extendedKeyUsage={usage}\n" + (f"subjectAltName={names}\n" if names else "")
    with open(f"{folder}/{name}.ext", "w") as file:
        file.write(extensions)
    openssl("req", "-new", "-key", f"{folder}/{name}.key", "-subj", subject, "-out", f"{folder}/{name}.csr")
    openssl("x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", f"{folder}/{ca}.crt", "-CAkey", f"{folder}/{ca}.key", "-CAcreateserial",
            "-days", DAYS, "-extfile", f"{folder}/{name}.ext", "-out", f"{folder}/{name}.crt")
    for rest in ("ext", "csr"):
        os.remove(f"{folder}/{name}.{rest}")


def make_all(folder):
    os.makedirs(folder, mode=0o700, exist_ok=True)
    authority(folder, "ca", "eirun-test-ca")
    authority(folder, "front-ca", "eirun-test-front-ca")
    issue(folder, "apiserver", "ca", "/CN=kube-apiserver", "serverAuth", SERVER_NAMES)
    issue(folder, "admin", "ca", "/O=system:masters/CN=admin", "clientAuth")
    issue(folder, "front-client", "front-ca", "/CN=front-proxy-client", "clientAuth")
    key(f"{folder}/sa.key")
    openssl("ec", "-in", f"{folder}/sa.key", "-pubout", "-out", f"{folder}/sa.pub")
