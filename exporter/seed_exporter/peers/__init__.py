"""Peers: what other software makes of the same model, to compare with. One file a peer, and one line here.

No peer is imported before it is asked for something; most are packages that few have installed.
"""

from __future__ import annotations

from typing import Final

from seed_exporter.peers import nncf, nncodec, onnxruntime, xz
from seed_exporter.peers.base import Deliverable, Peer, PeerError

__all__ = ["PEERS", "Deliverable", "Peer", "PeerError"]

PEERS: Final[dict[str, Peer]] = {
    peer.name: peer
    for peer in (
        xz.PEER,
        onnxruntime.DYNAMIC,
        onnxruntime.STATIC,
        onnxruntime.FOUR_BITS,
        nncf.INT8,
        nncf.INT4,
        nncodec.PEER,
    )
}
"""Peers by their names, in the order of tables."""
