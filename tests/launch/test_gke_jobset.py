# SPDX-License-Identifier: Apache-2.0
"""launch/gke_jobset.yaml: structure, and parts that have to agree."""

import copy
import json
import pathlib
import re
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE.parents[1] / 'launch' / 'gke_jobset.yaml'

jsonschema = pytest.importorskip('jsonschema')
yaml = pytest.importorskip('yaml')


@pytest.fixture
def jobset():
  return yaml.safe_load(FILE.read_text())


def validate(jobset):
  schema = json.loads((HERE / 'jobset_schema.json').read_text())
  jsonschema.Draft202012Validator.check_schema(schema)
  jsonschema.validate(jobset, schema)


def pod(jobset):
  job = jobset['spec']['replicatedJobs'][0]['template']['spec']
  return job, job['template']['spec'], job['template']['spec']['containers'][0]


def environment(container):
  return {e['name']: e for e in container['env']}


def test_follows_the_schema(jobset):
  validate(jobset)


def _misspell_parallelism(jobset):
  job = pod(jobset)[0]
  job['paralelism'] = job.pop('parallelism')


def _number_as_environment(jobset):
  environment(pod(jobset)[2])['VIDRET_NUM_PROCESSES']['value'] = 4


def _upper_case_name(jobset):
  jobset['metadata']['name'] = 'Vidret'


@pytest.mark.parametrize(
  'spoil',
  [_misspell_parallelism, _number_as_environment, _upper_case_name],
)
def test_the_schema_rejects(jobset, spoil):
  spoil(jobset)
  with pytest.raises(jsonschema.ValidationError):
    validate(copy.deepcopy(jobset))


def test_processes_find_each_other(jobset):
  job, spec, container = pod(jobset)
  env = environment(container)
  name = jobset['metadata']['name']
  replicated = jobset['spec']['replicatedJobs'][0]['name']
  host, port = env['VIDRET_COORDINATOR']['value'].split(':')
  assert host == f'{name}-{replicated}-0-0.{name}'
  assert jobset['spec']['network']['enableDNSHostnames'] is True
  assert {'containerPort': int(port)} in container['ports']
  assert job['completionMode'] == 'Indexed'
  count = int(env['VIDRET_NUM_PROCESSES']['value'])
  assert count == job['parallelism'] == job['completions']
  field = env['VIDRET_PROCESS_ID']['valueFrom']['fieldRef']['fieldPath']
  assert field.endswith("['batch.kubernetes.io/job-completion-index']")
  assert spec['restartPolicy'] == 'Never'


def test_chips_fill_the_slice(jobset):
  job, spec, container = pod(jobset)
  selector = spec['nodeSelector']
  chips = 1
  for side in selector['cloud.google.com/gke-tpu-topology'].split('x'):
    chips *= int(side)
  each = container['resources']['limits']['google.com/tpu']
  assert chips == each * job['parallelism']


def test_mounts_are_volumes(jobset):
  _, spec, container = pod(jobset)
  names = {v['name'] for v in spec['volumes']}
  assert {m['name'] for m in container['volumeMounts']} <= names
  mounts = [m['mountPath'] for m in container['volumeMounts']]
  workdir = container['args'][container['args'].index('--workdir') + 1]
  data = environment(container)['VIDRET_DATA_DIR']['value']
  for path in (workdir, data, container['workingDir']):
    assert any(path.startswith(mount + '/') for mount in mounts)


def test_runs_the_main_command_on_a_shipped_config(jobset):
  container = pod(jobset)[2]
  shell, option, script, _ = container['command']
  assert (shell, option) == ('bash', '-c')
  subprocess.run([shell, '-n', '-c', script], check=True)
  last = script.strip().splitlines()[-1]
  assert re.fullmatch(r'exec \S+ -m vidret_jax\.main "\$@"', last)
  args = container['args']
  config = args[args.index('--config') + 1].partition(':')[0]
  assert (FILE.parents[1] / config).is_file(), config
