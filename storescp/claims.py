"""Ports that are taken by listeners of this host.

Several listeners of one node share its port; the kernel would let those of another node join, and give it
some of the films.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from pathlib import Path
from typing import Final

from clearfilm.errors import StartupError

_SOCKETS: Final = Path("/proc/net/unix")
_PREFIX: Final = "clearfilm"
_EVERYWHERE: Final = {"", "0.0.0.0", "::"}  # noqa: S104 - compared only
# Of a Unix address, with the leading NUL of the abstract names; cuts off only the end of a long folder.
_LONGEST_NAME: Final = 107


def claim(address: str, port: int, data_folder: Path) -> socket.socket | None:
    """Announce that a listener of the node with this data folder has the port.

    Parameters
    ----------
    address : str
    port : int
    data_folder : pathlib.Path
        Tells the nodes of a host apart.

    Returns
    -------
    socket.socket or None
        The claim lasts until it is closed: also when the process is killed. None where the system has no
        abstract Unix sockets. They belong to the network namespace, as ports do.

    Raises
    ------
    StartupError
        If a listener of another node has the port.
    """
    folder = str(data_folder.resolve())
    node = hashlib.sha256(folder.encode()).hexdigest()[:16]
    name = f"\0{_PREFIX} {port} {address} {node} {secrets.token_hex(4)} {folder}"
    claimed = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claimed.bind(name.encode()[:_LONGEST_NAME])
        lines = _SOCKETS.read_text(errors="replace").splitlines()
    except OSError:
        claimed.close()
        return None
    for line in lines:
        _, _, rest = line.partition(f"@{_PREFIX} {port} ")
        parts = rest.split(" ", 3)
        if len(parts) < 4:
            continue
        other_address, other_node, _, other_folder = parts
        overlap = address == other_address or {address, other_address} & _EVERYWHERE
        if overlap and other_node != node:
            claimed.close()
            raise StartupError(
                f"{address}:{port} is in use by another Clearfilm node (data folder {other_folder}); "
                "change node.port or stop it"
            )
    return claimed
