# SPDX-License-Identifier: Apache-2.0
r"""What FIVR-200K should take on machines that are not here: formula, numbers.

  python -m benchmarks.copy_search_model [--efficiency 0.4]

Nothing is measured on an accelerator. The lengths of videos are drawn with the
published count and mean; buckets, batches and hosts are those that the search
itself plans for them. Per frame pair and frame, FLOPs and bytes are counted in
`benchmarks.copy_search`; rates of devices are their vendors' figures; the
efficiency and the rate of storage are assumptions, so the roofline stands
beside them. Writes benchmarks/results/copy_search_model.json.
"""

import argparse
import dataclasses

import numpy as np

from benchmarks import copy_search as counts
from benchmarks import copy_videos, machine
from vidret_jax.search import copy_plan

FORMULA = (
  'padded frames = frames * (1 + padding of targets)'
  ' * (1 + padding of last batches); '
  'compute = padded frames * (query_frames * (1 + padding of queries)'
  ' * flops_per_frame_pair + flops_per_frame)'
  ' / (devices * peak * efficiency) * imbalance; '
  'reading = frames * bytes_per_frame / (hosts * storage rate); '
  'sending = padded frames * bytes_per_frame / (devices * link rate); '
  'first search = max(compute, reading, sending) as they overlap; '
  'a further search of resident features = compute.'
)

# FIVR-200K (arXiv 1809.04094): 225,960 videos, 100 queries. Frames: the size of
# the published feature file (406 GB) over 9 * 512 * 4 bytes; of queries alike.
VIDEOS, QUERIES, MEAN = 225_960, 100, 97.5
REGIONS, DIM = 9, 512


@dataclasses.dataclass(frozen=True)
class Machine:
  """Devices as their vendors describe them; bytes and seconds.

  Attributes:
    devices: chips.
    hosts: that they are in.
    peak: dense bfloat16 FLOP/s of a device.
    bandwidth: of its memory.
    memory: bytes of it.
    link: bytes/s from the host to a device; an assumption.
    storage: bytes/s that a host reads; an assumption.
  """

  devices: int
  hosts: int
  peak: float
  bandwidth: float
  memory: float
  link: float
  storage: float


# NVIDIA's data sheets of the A100 80 GB SXM and the H100 SXM (half of what they
# give for sparse matrices); Google Cloud's page of TPU v4.
MACHINES = {
  '8 x A100 80 GB': Machine(8, 1, 312e12, 2.04e12, 80e9, 25e9, 8e9),
  '8 x H100 80 GB': Machine(8, 1, 989e12, 3.35e12, 80e9, 50e9, 8e9),
  'TPU v4-32': Machine(16, 4, 275e12, 1.2e12, 32e9, 8e9, 2e9),
}


def estimate(m, plan, frames, queries, args):
  """Seconds of one machine; see FORMULA."""
  host = copy_plan.assign([s.cost for s in plan.shards], m.hosts)
  per_host = m.devices // m.hosts
  loads = [
    counts.padded(
      dataclasses.replace(
        plan, shards=[s for s in plan.shards if host[s.number] == h]
      ),
      per_host,
    )
    for h in range(m.hosts)
  ]
  asked = sum(b.rows * b.frames for b in queries)
  cells = sum(loads) * asked
  flops = cells * counts.CELL_FLOPS + sum(loads) * counts.ATTENTION_FLOPS
  imbalance = max(loads) / np.mean(loads)
  roofline = flops / (m.devices * m.peak) * imbalance
  size = frames * REGIONS * DIM * args.bytes
  reading = size / (m.hosts * m.storage)
  sending = size * sum(loads) / frames / (m.devices * m.link)
  compute = roofline / args.efficiency
  # In 16 bit: 81 products per frame pair written and read where no kernel
  # fuses their maximum; what the comparator's layers write and read.
  regions = cells * 81 * 2 * 2 / (m.devices * m.bandwidth)
  comparator = cells * args.comparator_bytes / (m.devices * m.bandwidth)
  pruned = {}
  for share in (0.01, 0.05):
    # As if the lists of different queries had nothing to do with each other.
    union = 1 - (1 - share) ** QUERIES
    one_pass = max(reading, sending)
    pruned[f'{share:.0%}'] = dict(
      compute_seconds=compute * share,
      share_of_videos_read=union,
      seconds_from_storage=one_pass + max(compute * share, one_pass * union),
      seconds_resident=compute * share,
      one_query_bytes=size * share,
    )
  return dict(
    **dataclasses.asdict(m),
    padding_share=dict(
      targets=sum(s.cost for s in plan.shards) / frames - 1,
      last_batches=sum(loads) / sum(s.cost for s in plan.shards) - 1,
      queries=asked / args.asked - 1,
      all=cells / (frames * args.asked) - 1,
    ),
    imbalance=imbalance,
    flops=flops,
    compute_seconds=dict(at_the_roofline=roofline, estimated=compute),
    memory_seconds=dict(
      region_products_if_not_fused=regions, comparator=comparator
    ),
    reading_seconds=reading,
    sending_seconds=sending,
    first_search_seconds=max(compute, reading, sending),
    further_search_seconds=compute,
    resident=size / m.devices < 0.8 * m.memory,
    bytes_per_device=size / m.devices,
    pruned=pruned,
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--efficiency', type=float, default=0.4, help='assumed')
  parser.add_argument('--bytes', type=int, default=2, help='of a value')
  parser.add_argument('--comparator_bytes', type=float, default=276)
  parser.add_argument('--spread', type=float, default=0.9, help='of lengths')
  args = parser.parse_args()
  items = copy_videos.lengths(VIDEOS, MEAN, spread=args.spread)
  asked = copy_videos.lengths(QUERIES, MEAN, spread=args.spread, seed=1)
  # A hundred draws have another mean, of which all figures are multiples.
  asked = np.maximum(np.round(asked * MEAN / asked.mean()), 8).astype(np.int64)
  args.asked = int(asked.sum())
  frames = int(items.sum())
  out = {}
  for name, options in (
    ('defaults', copy_plan.Options()),
    (
      '32 fitted edges, 8 groups of queries',
      copy_plan.Options(edges=32, query_buckets=8),
    ),
  ):
    plan = copy_plan.plan(items, options)
    queries = copy_plan.query_blocks(asked, options)
    shapes = {(s.frames, s.rows) for s in plan.shards}
    out[name] = dict(
      shards=len(plan.shards),
      programs=len(shapes) * len({(q.frames, q.rows) for q in queries}),
      machines={
        key: estimate(m, plan, frames, queries, args)
        for key, m in MACHINES.items()
      },
    )
  cells = frames * args.asked
  machine.write(
    'copy_search_model',
    dict(
      formula=FORMULA,
      assumed=dict(efficiency=args.efficiency, bytes_per_value=args.bytes),
      videos=VIDEOS,
      frames=frames,
      query_frames=args.asked,
      frame_pairs=cells,
      flops_per_frame_pair=counts.CELL_FLOPS,
      flops_per_frame=counts.ATTENTION_FLOPS,
      flops_without_padding=cells * counts.CELL_FLOPS
      + frames * counts.ATTENTION_FLOPS,
      feature_bytes=frames * REGIONS * DIM * args.bytes,
      score_bytes=VIDEOS * QUERIES * 4,
      plans=out,
    ),
  )


if __name__ == '__main__':
  main()
