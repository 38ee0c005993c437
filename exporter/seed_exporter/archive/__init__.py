"""Archives: thousands of checkpoints of one model as chains of seeds in a folder (docs/archive.md, ADR 0025).

<DIR>/seeds/<digest>.seed   a checkpoint; its name and number are the seed's model id and version
<DIR>/seeds/<digest>.base   a seed that only others need: a checkpoint that was pruned
<DIR>/index.json            what the headers of these seeds say; rebuilt where it is missing or old
<DIR>/latest/               decoded weights of the last checkpoints, checked by their digests; may be removed
<DIR>/lock                  held by who writes
"""

from seed_exporter.archive.archive import Archive
from seed_exporter.archive.results import Added, Pruned

__all__ = ["Added", "Archive", "Pruned"]
