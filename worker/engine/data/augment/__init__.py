"""Random changes to images, in batches on their device, drawn by counters.

An image's bits depend on (seed, sample, view) alone on one kind of device with one version of the libraries, never on
the batch that it is in or on how many threads there are. Three habits keep it so, and every transform has them:

- Large tensors see elementwise operations that IEEE 754 rounds one way, copies, integer sums, smallest and largest
  values, and bilinear sampling, which goes sample by sample. No operation fuses a product with a sum, and sums of
  floats are taken by halves (`colour.sum_by_halves`): a library's own reduction may go another way for another batch.
- What needs a sine, a power or a logarithm is looked up in a table (`draws.tabulate`): the last bit of a vectorised
  power depends on where in a batch it stands.
- Masks are factors of 0 and 1, and choices are gathers: many times as fast as `torch.where` on a CPU.
"""

from worker.engine.data.augment.augmenter import Augmented, Augmenter
from worker.engine.data.augment.mixing import mixed_labels

__all__ = ["Augmented", "Augmenter", "mixed_labels"]
