"""Names of clients: what every message can carry, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core import ClientId, is_whole


def client_ids(ids: Iterable[Any]) -> tuple[ClientId, ...]:
    """The ids as plain int and str: what every message can carry. Whole numbers of 64 bits, and strings; nothing else."""
    return tuple(_client_id(client) for client in ids)


def _client_id(client: Any) -> ClientId:
    if is_whole(client):
        if not -(2**63) <= client < 2**64:
            raise ValueError(f"client id {client}: a message carries whole numbers of 64 bits; use str(id) for longer ones")
        return int(client)
    if isinstance(client, str):
        if not client.isascii() and client.encode("utf-8", "replace").decode() != client:
            raise ValueError(f"client id {client!r} is no text: half of a character cannot be sent")
        return str.__str__(client)
    cure = "use str(id), or number the clients"
    if isinstance(client, tuple):
        cure = "use str(id), or group by the column's name instead of a list of names: groupby('hospital')"
    elif isinstance(client, bytes):
        cure = "decode it: id.decode()"
    raise TypeError(f"client id {client!r} is a {type(client).__name__}; ids are whole numbers or strings: {cure}")
