# SPDX-License-Identifier: Apache-2.0
"""A job of `tools.extract` as an Apache Beam pipeline.

Videos go through in groups. Every worker process makes the networks once, and
writes what it finds below the output, which all workers have to see under the
same path, as the folder of the videos (a network file system, or a mounted
bucket).
"""

from collections.abc import Mapping, Sequence
from typing import Any


def pipeline(
  job: Any,
  names: Mapping[str, str],
  runner: str,
  options: Sequence[str] = (),
  group: int = 16,
) -> None:
  """Runs a job on all videos.

  Args:
    job: see `extract_jobs`.
    names: id -> path below the folder of the videos.
    runner: name of a runner of Beam, such as 'DirectRunner'.
    options: '--name=value' of the runner.
    group: videos that are one unit of work.

  Raises:
    ValueError: Beam is not installed.
    RuntimeError: what workers raise, by way of Beam.
  """
  try:
    import apache_beam as beam
    from apache_beam.options import pipeline_options
  except ImportError:
    raise ValueError(
      "--beam needs Apache Beam: pip install 'vidret_jax[beam]'."
    ) from None

  items = list(names.items())
  groups = [items[i : i + group] for i in range(0, len(items), group)]
  given = pipeline_options.PipelineOptions(list(options), runner=runner)
  with beam.Pipeline(options=given) as stages:
    _ = (
      stages
      | 'videos' >> beam.Create(groups)
      | 'spread' >> beam.Reshuffle()
      | 'extract' >> beam.Map(_extract, job)
    )


def _extract(group, job):
  """One unit of work; a repetition of it does no harm."""
  import apache_beam as beam

  job.extract(dict(group), lambda name: None)
  beam.metrics.Metrics.counter('vidret_jax', 'videos').inc(len(group))
