"""The token file: lines ``NAME:SCOPE:TOKEN``. Tokens are kept as digests only, and no message repeats a word of a line."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from pathlib import Path
from typing import Literal, cast

from msgspec import Struct

from boreas_agent.api.watched import read
from boreas_agent.errors import Unusable

Scope = Literal["read", "apply"]
SCOPES = ("read", "apply")
SHORT = 16
"""Shorter ones can be found by trying, which is worth a warning; ``openssl rand -hex 32`` makes one of 64."""
MAX_TOKENS = 1000
_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
_TOKEN = re.compile(r"[!-~]+")


class Token(Struct, frozen=True):
    """Whose token it is and what it may do; of the token itself only its SHA-256."""

    name: str
    scope: Scope
    digest: bytes

    def __repr__(self) -> str:
        return f"Token(name={self.name!r}, scope={self.scope!r})"


class Tokens(Struct, frozen=True):
    """All tokens in force. A name may have several, so that a new one can be handed out before the old one goes."""

    known: tuple[Token, ...]

    def find(self, presented: str) -> Token | None:
        """The token that was presented. Takes as long for a wrong one as for any right one."""
        digest = _digest(presented)
        found = None
        for token in self.known:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found


def load(path: Path) -> Tokens:
    """The tokens of a file that only its owner can read. Blocking. Raises Unusable."""
    content = read(path, "the token file", _privacy)
    try:
        return Tokens(_tokens(content.decode()))
    except UnicodeDecodeError:
        raise Unusable(f"cannot use the token file {path}: it is not UTF-8 text") from None
    except ValueError as error:
        raise Unusable(f"cannot use the token file {path}: {error}") from None


def _privacy(found: os.stat_result) -> str:
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return f"others than its owner have rights on it (mode {mode:04o}); chmod 600 takes them away"
    if found.st_uid not in {0, os.geteuid()}:
        return f"it belongs to user {found.st_uid}, who could change it; it must belong to root or to the agent's user ({os.geteuid()})"
    return ""


def _tokens(text: str) -> tuple[Token, ...]:
    lines: dict[bytes, int] = {}
    tokens = []
    short = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        token = _token(line.strip(), number)
        short += [str(number)] if len(line.strip().split(":", 2)[2]) < SHORT else []
        if token.digest in lines:
            raise ValueError(f"lines {lines[token.digest]} and {number} hold the same token")
        lines[token.digest] = number
        tokens.append(token)
    if not tokens:
        raise ValueError("there is no token in it, so nobody could call; a line is NAME:SCOPE:TOKEN")
    if len(tokens) > MAX_TOKENS:
        raise ValueError(f"it holds {len(tokens)} tokens; at most {MAX_TOKENS} are allowed")
    if short:
        _log.warning(
            "a token is so short that it can be found by trying; openssl rand -hex 32 makes a good one", extra={"lines": ", ".join(short)}
        )
    return tuple(tokens)


def _token(line: str, number: int) -> Token:
    """Says what is wrong by the line's number alone: with the parts in a wrong order, any of them may be the secret."""
    name, scope, secret = (*line.split(":", 2), "", "")[:3]
    if not _NAME.fullmatch(name) or not scope:
        raise ValueError(f"line {number} is not NAME:SCOPE:TOKEN with a name of letters, digits and _ . @ -")
    if scope not in SCOPES:
        raise ValueError(f"the scope in line {number} is neither read nor apply; a line is NAME:SCOPE:TOKEN")
    if not secret:
        raise ValueError(f"the token in line {number} is missing; openssl rand -hex 32 makes a good one")
    if not _TOKEN.fullmatch(secret):
        raise ValueError(f"the token in line {number} contains spaces or characters that are not ASCII")
    return Token(name, cast("Scope", scope), _digest(secret))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
