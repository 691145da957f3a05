# SPDX-License-Identifier: Apache-2.0
"""Reading golden files, and models and batches made from them."""

import json
import pathlib

import numpy as np

from vidret_jax.convert import ce as convert
from vidret_jax.convert import ce_config
from vidret_jax.models import ce

# Upstream's names of the metrics -> ours.
METRICS = {
  'R1': 'R@1',
  'R5': 'R@5',
  'R10': 'R@10',
  'R50': 'R@50',
  'MedR': 'MdR',
  'MeanR': 'MnR',
  'geometric_mean_R1-R5-R10': 'geom',
}
# Names of the published set: reported as skipped where a folder lacks them.
# Whatever else a folder holds is tested as well.
_VARIANTS = (
  'ce_9experts',
  'ce_caption_avg',
  'ce_no_self',
  'ce_relu_nobn_h1_g2',
  'ce_star',
  'concat_text_large',
  'concat_text_small',
  'mimic_dims',
  'moee_5experts',
  'moee_frozen_weights',
  'moee_keep_missing',
)
_HGR = ('default', 'epic', 'lstm', 'sim_gcn')
_JOBS = (
  'activity-net',
  'didemo',
  'lsmdc',
  'msrvtt_1kA',
  'msrvtt_1kB_miechfeats_moee',
  'msrvtt_full',
  'msvd',
)


def _folders(root, part, known):
  found = {p.name for p in (root / part).glob('*') if p.is_dir()}
  return sorted(found | set(known))


def _variants(root):
  return _folders(root, 'models', _VARIANTS)


def _precise(root):
  """Variants that come with a float64 run."""
  found = {p.parent.name for p in root.glob('models/*/io_float64.npz')}
  return sorted(found | {'ce_9experts'})


def _checkpoints(root):
  found = {str(p.relative_to(root)) for p in root.rglob('*.pth')}
  known = {f'models/{v}/checkpoint.pth' for v in _VARIANTS}
  known |= {f'e2e/{j}/trained_model.pth' for j in _JOBS}
  return sorted(found | known | {'original_moee/state_dict.pth'})


def _jobs(root):
  """End-to-end jobs: folders with a config; others hold their data."""
  found = {p.parent.name for p in root.glob('e2e/*/config.json')}
  return sorted(found | set(_JOBS))


def _endings(pattern, known):
  """Lists what stands for the star in the files of a folder."""
  start, end = pattern.rpartition('/')[2].split('*')

  def lister(root):
    found = {p.name[len(start) : -len(end)] for p in root.glob(pattern)}
    return sorted(found | set(known))

  return lister


def _models(pattern, known):
  """As `_endings`, without trainings, which have several files of a name."""
  lister = _endings(pattern, known)
  return lambda root: [n for n in lister(root) if not n.startswith('train_')]


def _forwards(root):
  """What stands behind 'forward' in files of whole passes: '', '_short'."""
  found = _endings('forward*.npz', ('', '_short'))(root)
  return [name for name in found if name != '_grads']


# System -> fixture -> what of its folder a test is run for.
LISTS = {
  'ce': {
    'job': _jobs,
    'variant': _variants,
    'precise_variant': _precise,
    'checkpoint': _checkpoints,
  },
  'eercf': {
    'trained': _endings('eercf_*_forward.npz', ('a', 'b')),
    'towers': _endings('clip_*_encode.npz', ('c',)),
    'public_towers': _endings('clip_*_public.npz', ('c',)),
  },
  'reloclnet': {
    'forward_name': _forwards,
    'xml_name': _endings('xml/*_forward.npz', ('xml', 'xml_single')),
  },
  'ranp': {
    'hgr_name': _models('hgr_*.pth', _HGR),
    'hgr_training': _endings('hgr_train_*.npz', ('base_nohn', 'ranp')),
    'eao_name': _models('eao_*.pth', ('default', 'pos_cls')),
  },
}


class Arrays:
  """An npz file that knows which of its arrays were read."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    with np.load(path, allow_pickle=False) as data:
      self._data = dict(data)
    self._read = set()

  def __contains__(self, key):
    return key in self._data

  def __getitem__(self, key):
    self._read.add(key)
    return self._data[key]

  def under(self, prefix: str) -> dict[str, np.ndarray]:
    """{rest of the key: array} of the keys below a prefix."""
    return {
      k[len(prefix) :]: self[k] for k in self._data if k.startswith(prefix)
    }

  def groups(self) -> list[str]:
    """First path components, sorted."""
    return sorted({k.split('/')[0] for k in self._data})

  def assert_all_read(self):
    rest = sorted(set(self._data) - self._read)
    assert not rest, f'{self.path}: arrays that no test checks: {rest}'


class Errors:
  """Largest absolute errors by name, checked against tolerances."""

  def __init__(self):
    self._found = {}

  def close(self, name, got, want, atol, rtol=0.0):
    """Asserts |got - want| <= atol + rtol |want| everywhere."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, (
      f'{name}: shape {got.shape}, expected {want.shape}'
    )
    assert np.isfinite(got).all() and np.isfinite(want).all(), (
      f'{name}: not finite'
    )
    gap = np.abs(got.astype(np.float64) - want.astype(np.float64))
    allowed = atol + rtol * np.abs(want.astype(np.float64))
    with np.errstate(divide='ignore', invalid='ignore'):
      share = np.where(gap == 0, 0, gap / allowed).max(initial=0)
    worst = float(gap.max(initial=0))
    self._found[name] = (share, worst)
    assert share <= 1, (
      f'{name}: error {worst:.3g}, {share:.3g} times what is allowed '
      f'(atol {atol:g}, rtol {rtol:g})'
    )

  def summary(self) -> str:
    if not self._found:
      return ''
    worst = max(self._found, key=lambda n: self._found[n][1])
    nearest = max(self._found, key=lambda n: self._found[n][0])
    return (
      f'largest error {self._found[worst][1]:.2g} ({worst}); nearest to '
      f'its tolerance {self._found[nearest][0]:.0%} ({nearest}); '
      f'{len(self._found)} arrays'
    )


def upstream_config(root: pathlib.Path, folder: pathlib.Path):
  """The config of a variant or job, and its text width."""
  config = json.loads((folder / 'config.json').read_text())
  table = root / pathlib.Path(config['text_embedding_model_configs']).name
  dims = {k: v['dim'] for k, v in json.loads(table.read_text()).items()}
  return config, dims[config['experts']['text_feat']]


def load_model(root: pathlib.Path, path: pathlib.Path, **overrides):
  """Model and variables of an upstream checkpoint and the config beside it."""
  config, text_dim = upstream_config(root, path.parent)
  kwargs = ce_config.model_config(config, text_dim=text_dim)
  model = ce.make(**{**kwargs, **overrides})
  variables, _ = convert.load(path, model)
  return config, model, variables


def item_batch(io: Arrays, names, experts='in/experts/', ind='in/ind/'):
  """`experts` and `available` as the model takes them; NaN stays NaN."""
  return dict(
    experts={n: io[f'{experts}{n}'] for n in names},
    available=np.stack([io[f'{ind}{n}'] for n in names], 1) > 0,
  )
