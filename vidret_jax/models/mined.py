# SPDX-License-Identifier: Apache-2.0
"""What the systems trained with relevance-aware mining share.

Falcon, Serra, Lanz, "Learning video retrieval models with relevance-aware
online mining", ICIAP 2022, https://arxiv.org/abs/2203.08688.
"""

import jax.numpy as jnp

from vidret_jax.losses import mining as mining_lib
from vidret_jax.losses.mining import Mining
from vidret_jax.models import base
from vidret_jax.models.base import Array, Batch, Emb
from vidret_jax.ops import relevance as relevance_lib

_CLASSES = (
  *('video_verb_classes', 'video_noun_classes'),
  *('verb_classes', 'noun_classes'),
)


class Mined(base.Retriever):
  """A Retriever whose loss mines the batch by relevance.

  Attributes:
    mining: which pairs count as negatives and positives, and the loss of them.
  """

  mining: Mining = Mining()

  def mined(
    self, sim_qv: Array, batch: Batch, part: str = 'full'
  ) -> dict[str, Array]:
    """The loss of one similarity matrix: its parts by name.

    Args:
      sim_qv: [b, b], captions are rows, clips columns.
      batch: with classes of captions and clips, if relevance is used.
      part: which relevance; see `ops.relevance`.
    """
    relevance_qv = None
    if self.mining.threshold is not None:
      absent = [key for key in _CLASSES if key not in batch]
      if absent:
        raise ValueError(
          f'mining.threshold={self.mining.threshold} needs the classes of '
          f'captions and clips, but the batch has no {", ".join(absent)}. '
          "Train on the view 'pairs' of a dataset with classes, or set "
          'mining.threshold=None.'
        )
      relevance_qv = relevance_lib.relevance(
        *(jnp.asarray(batch[key]) for key in _CLASSES), part=part
      ).T
    where = base.row_mask(batch, sim_qv.shape[0])
    return mining_lib.mine(sim_qv, relevance_qv, self.mining, where)

  def matrices(self, q: Emb, v: Emb) -> dict[str, Array]:
    """Similarities that `objective` may train, [b, b] each; `fused` is one."""
    return {'fused': self.score(q, v)}

  def objective(
    self, sims: dict[str, Array], batch: Batch
  ) -> tuple[Array, dict[str, Array]]:
    """The loss of a batch from its `matrices`, and its parts."""
    parts = self.mined(sims['fused'], batch)
    return sum(parts.values()), parts

  def loss(
    self, batch: Batch, *, step: Array | int, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """`objective` of the pairs of the batch."""
    del step
    where = base.row_mask(batch, len(batch['feature_mask']))[:, None]
    # Excluded rows become padding, whatever they hold.
    shown = {k: batch[k] & where for k in ('feature_mask', 'word_mask')}
    batch = {**batch, **shown}
    q = self.encode_query(batch, train=train)
    v = self.encode_item(batch, train=train)
    return self.objective(self.matrices(q, v), batch)
