# SPDX-License-Identifier: Apache-2.0
"""Where the files of a dataset are below the root folder of the RANP release.

One root holds all datasets (github.com/aranciokov/ranp; path tables of its
configuration scripts). Annotations lie in `annotation/`; the release notes
call that folder `annotations/`, so both are found.
"""

from collections.abc import Mapping
import dataclasses

# Our split -> theirs.
SPLITS = {'train': 'trn', 'val': 'val', 'test': 'tst'}
FOLDER = 'RANP'  # Below the data folder.
RELEASE = (
  'https://doi.org/10.5281/zenodo.11351375 (features, splits, annotations)'
)
_EPIC = 'https://github.com/epic-kitchens/epic-kitchens-100-annotations'


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the files of one dataset are, and how their keys are read.

  Attributes:
    name: of the dataset in configs.
    annotation: folder below `annotation/`.
    vocabulary: last part of the names of the vocabulary files.
    features: folder below `ordered_feature/`.
    streams: the folders of features in there that are read by default.
    lists: folder of the lists of clips.
    classes: file of the class annotations of the training split.
    relevance: split -> names that its relevance matrix may have; the first
      that exists is taken.
    feature_file: of a stream, with '{split}'.
    captions_by: 'clip', or 'slot' where keys are '<clip>_<slot>' with one
      caption each.
    classes_by: 'clip', or 'slot' ('<clip>_<slot>'), or 'rank' (the same
      without '.mp4', and caption k has the k-th key, whatever its number).
    num_classes: of verbs and nouns, where known.
    narrations: table of the captions of the test split, if they are not those
      of its clips.
    alignment: of streams: 'shortest' or '1ka'; see `features.align`.
    graphs: whether there are role graphs.
    evaluated: keys of two files with the only captions of a clip that are
      evaluated: lists of captions, whose first counts, and captions that
      replace it.
    source: where the files are published.
  """

  name: str
  annotation: str
  vocabulary: str
  features: str
  streams: tuple[str, ...]
  lists: str
  classes: str
  relevance: Mapping[str, tuple[str, ...]]
  feature_file: str = '{split}_ft.hdf5'
  captions_by: str = 'clip'
  classes_by: str = 'slot'
  num_classes: tuple[int, int] | None = None
  narrations: str | None = None
  alignment: str = 'shortest'
  graphs: bool = True
  evaluated: Mapping[str, str] = dataclasses.field(default_factory=dict)
  source: str = RELEASE

  def __hash__(self):
    return hash(self.name)

  def files(self) -> dict[str, tuple[str, ...]]:
    """Key of `paths` -> names below the root that the file may have."""
    folder = f'annotation/{self.annotation}/'
    out = {f'names_{s}': (f'{self.lists}/{t}_names.npy',) for s, t in _PAIRS}
    out['captions'] = (folder + 'ref_captions.json',)
    out['word2int'] = (f'{folder}word2int_{self.vocabulary}.json',)
    out['int2word'] = (f'{folder}int2word_{self.vocabulary}.npy',)
    out['classes'] = (folder + self.classes,)
    if self.graphs:
      out['graphs'] = (folder + 'sent2rolegraph.augment.json',)
    if self.narrations:
      out['narrations'] = (folder + self.narrations,)
    for split, names in self.relevance.items():
      out[f'relevance_{split}'] = tuple(folder + name for name in names)
    for key, name in self.evaluated.items():
      out[key] = (folder + name,)
    return out

  def feature_path(self, stream: str, split: str) -> str:
    """File of one stream of one split, below the root."""
    file = self.feature_file.format(split=SPLITS[split])
    return f'ordered_feature/{self.features}/{stream}/{file}'


_PAIRS = tuple(SPLITS.items())

EPIC_KITCHENS = Layout(
  name='epic_kitchens_graphs',
  annotation='epic100RET',
  vocabulary='epic100',
  features='epic100SA',
  streams=('TBN.pth',),
  feature_file='EPIC100_TBN_feats_SA_{split}.hdf5',
  lists='public_split_epic100',
  classes='epic100_train.json',
  classes_by='clip',
  num_classes=(97, 300),
  relevance={
    'val': ('validation_rel_mat_epic100_iciap.pkl',),
    'test': ('epic100_rel_mat.pkl',),
  },
  narrations='EPIC_100_retrieval_test_sentence.csv',
  source=f'{RELEASE}; the table of test sentences: {_EPIC}',
)
MSRVTT = Layout(
  name='msrvtt_graphs',
  annotation='msr-vttRET',
  vocabulary='msr-vtt',
  features='msrvttSA',
  streams=('EAO_resnet152.pth', 'EAO_resnext101.pth'),
  lists='public_split_msrvtt',
  classes='msrvtt_train.json',
  classes_by='rank',
  relevance={
    'val': ('sorted_MSRVTT-Full_rel_mat_wordsets0.25_val.hdf5',),
    'test': ('sorted_MSRVTT-Full_rel_mat_wordsets0.25.hdf5',),
  },
)
# For EAO only: no graphs, no relevance, one caption per clip. The release does
# not say what its lists are called; name them with `paths`.
MSRVTT_1KA = dataclasses.replace(
  MSRVTT,
  lists='public_split_msrvtt_1kA',
  relevance={},
  alignment='1ka',
  graphs=False,
  evaluated={
    'captions_1ka': 'ref_captions_msrvtt_val_1kA.json',
    'replaced_1ka': 'caps_msrvtt_1kA_wrong.json',
  },
)
MSVD = Layout(
  name='msvd_graphs',
  annotation='msvdRET',
  vocabulary='msvd',
  features='MSVD',
  streams=('ViT',),
  lists='public_split_msvd',
  classes='msvd_train.json',
  relevance={
    'val': ('msvd_val_relevance.pkl',),
    'test': ('msvd_test_relevance.pkl',),
  },
)
CHARADES = Layout(
  name='charades_graphs',
  annotation='charadesRET',
  vocabulary='charades',
  features='Charades',
  streams=('ViT',),
  lists='public_split_charades',
  classes='charades_train.json',
  captions_by='slot',
  relevance={
    # Upstream takes the matrix of the test split for both.
    'val': (
      'charades_val_relevance_SYN.pkl',
      'charades_test_relevance_SYN.pkl',
    ),
    'test': ('charades_test_relevance_SYN.pkl',),
  },
)
