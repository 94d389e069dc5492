#!/usr/bin/env python3
"""Whether any of some secrets stands in any of some files: as it is, in hexadecimal, or in base64.

  find-secrets.py FILE… <SECRETS

SECRETS are lines of hexadecimal digits. Of each, every 16 bytes in a row are searched for, so that a key is found without
its salt and the other way round. Prints what is found where; exit status 0 if something is, 1 if nothing is."""
import base64
import sys

PART = 16


def forms(part):
    """Every way in which these bytes may be written. In base64 they begin at any of three places of a group."""
    yield "raw", part
    yield "hex", part.hex().encode()
    yield "hex", part.hex().upper().encode()
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + part)
        # What shares a character with what stands before or behind is left out.
        inner = text[(shift * 8 + 5) // 6 : (shift + len(part)) * 8 // 6]
        yield "base64", inner
        yield "base64", inner.replace(b"+", b"-").replace(b"/", b"_")


def main():
    secrets = [bytes.fromhex(line.strip()) for line in sys.stdin if line.strip()]
    if not secrets or any(len(secret) < PART for secret in secrets):
        sys.exit(f"find-secrets.py: secrets of {PART} bytes and more are expected on stdin")
    found = set()
    for path in sys.argv[1:]:
        with open(path, "rb") as file:
            data = file.read()
        for number, secret in enumerate(secrets, 1):
            for at in range(len(secret) - PART + 1):
                for form, text in forms(secret[at : at + PART]):
                    if text in data:
                        found.add((path, number, form))
    for path, number, form in sorted(found):
        print(f"{path}: secret {number}, {form}")
    sys.exit(0 if found else 1)


main()
