"""What answers at the address of a Ray head: asked in a process of its own, which may hang or be aborted.

Ray's own client waits for a minute and a half for a head that is none, and then ends the process that asked.
"""

from __future__ import annotations

import json
import sys


def probe(address: str) -> dict[str, object]:
    """The versions of Ray and of Python at ``address``, and whether a node of that cluster is this machine."""
    import ray
    from ray._private.services import find_node_ids

    client = ray._raylet.GcsClient(address=address)
    found = json.loads(client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=5) or b"{}")
    nodes = {node.hex() for node, about in client.get_all_node_info(timeout=5).items() if about.state == about.ALIVE}
    return {
        "ray": found.get("ray_version", ""),
        "python": found.get("python_version", ""),
        "here": bool(nodes & {*find_node_ids()}),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(sys.argv[1])) + "\n")
