"""How long one answer takes on the CPU."""

from collections.abc import Mapping

from torch import Tensor, nn

from stillhouse.contract.report import Latency


def measure_latency(models: Mapping[str, nn.Module], inputs: Tensor, *, num_runs: int = 300) -> dict[str, Latency]:
    """CPU latency of one forward pass of each model on `inputs` (1, *input_shape), normalised float32.

    The models take turns run by run, so that a drift of the machine hits all alike. They may live on any device; copies
    are measured, in eval mode, with the process's number of threads.
    """
    raise NotImplementedError
