"""What the teacher says of each sample, computed once and kept for every job that would ask the same."""

from worker.engine.softlabels.folder import LabelFolder, RankFolder
from worker.engine.softlabels.keys import CHUNK
from worker.engine.softlabels.labelling import Desk, Shown, label_softly
from worker.engine.softlabels.mode import Cost, LabelMode, decide
from worker.engine.softlabels.plan import Labelled, num_chunks
from worker.engine.softlabels.shards import Rows, join

__all__ = [
    "CHUNK", "Cost", "Desk", "LabelFolder", "LabelMode", "Labelled", "RankFolder", "Rows", "Shown", "decide", "join",
    "label_softly", "num_chunks",
]
