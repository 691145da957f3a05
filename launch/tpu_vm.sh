#!/usr/bin/env bash
# Trains on a Cloud TPU from a queued resource, again and again until done.
#
#   launch/tpu_vm.sh [--dry_run] NAME ZONE TYPE BUCKET -- ARGS
#   launch/tpu_vm.sh ce us-central2-b v4-32 my-bucket -- \
#     --config configs/ce_msrvtt.py
#
# Asks for the queued resource NAME, waits for it, sends the committed code of
# this checkout to every host, trains there with gs://BUCKET/runs/NAME as the
# workdir and gs://BUCKET/data as VIDRET_DATA_DIR, and gives the TPU back when
# results.json is in the bucket. A preempted TPU is asked for again, and
# training goes on from the last checkpoint. A failure on a TPU that is still
# there ends the script and keeps the TPU, to look at. Start it in tmux on a
# machine with gcloud: it can be stopped and started again at any time.
#
# The bucket is mounted as a folder and needs a hierarchical namespace, so
# that a checkpoint appears whole or not at all (docs/cloud.md).
# SPOT=false asks for TPUs that are not preempted, RUNTIME names the VM image,
# SETUP is a command for each host before anything else, WAIT the seconds
# between two looks at the resource.
set -euo pipefail

spot="${SPOT:-true}"
runtime="${RUNTIME:-tpu-ubuntu2204-base}"
wait="${WAIT:-60}"

usage() {
  echo "usage: ${0} [--dry_run] NAME ZONE TYPE BUCKET -- ARGS" >&2
  echo "expected ${1}" >&2
  exit 2
}

dry_run=false
if [[ "${1:-}" == --dry_run ]]; then
  dry_run=true
  shift
fi
(($# >= 5)) && [[ "${5}" == -- ]] || usage "four names and '--', found: $*"
name="${1}" zone="${2}" type="${3}" bucket="${4#gs://}"
shift 5
for argument in "$@"; do
  [[ "${argument}" != --workdir* ]] ||
    usage "no --workdir: it is gs://${bucket}/runs/${name}"
done

# What each host runs; it travels as text, so it uses its arguments only.
on_host() {
  set -euo pipefail
  local bucket="${1}" name="${2}" setup="${3}"
  shift 3
  bash -c "${setup}"
  sudo mkdir -p /gcs
  if ! mountpoint -q /gcs; then
    command -v gcsfuse >/dev/null || sudo apt-get install -q -y gcsfuse
    sudo chown "$(id -u)" /gcs
    gcsfuse --implicit-dirs "${bucket}" /gcs
  fi
  # Ubuntu 22.04, the system of the TPU images, has Python 3.10 as python3.
  command -v python3.11 >/dev/null ||
    sudo apt-get install -q -y python3.11 python3.11-venv
  cd "${HOME}/vidret_jax"
  [[ -x .venv/bin/python ]] || python3.11 -m venv .venv
  .venv/bin/python -m pip install --quiet -c requirements/tested.txt \
    -e . 'jax[tpu]'
  # JAX asks the TPU's metadata which hosts there are and which one this is.
  export VIDRET_DISTRIBUTED=auto
  export VIDRET_DATA_DIR=/gcs/data
  # A run whose terminal was lost may still be there: one at a time.
  exec 9>.run.lock
  flock 9
  exec .venv/bin/python -m vidret_jax.main --workdir "/gcs/runs/${name}" "$@"
}

run() {
  if "${dry_run}"; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

state() {
  gcloud compute tpus queued-resources describe "${name}" --zone="${zone}" \
    --format='value(state.state)' 2>/dev/null || echo NONE
}

ask() {
  local options=()
  ! "${spot}" || options+=(--spot)
  run gcloud compute tpus queued-resources create "${name}" \
    --node-id="${name}" --zone="${zone}" --accelerator-type="${type}" \
    --runtime-version="${runtime}" "${options[@]}"
}

give_back() {
  run gcloud compute tpus queued-resources delete "${name}" \
    --zone="${zone}" --force --quiet
}

train() {
  local archive="build/${name}.tgz" command
  command="tar xzf vidret_jax.tgz
$(declare -f on_host)
on_host $(printf '%q ' "${bucket}" "${name}" "${SETUP:-true}" "$@")"
  run mkdir -p build || return
  run git archive --format=tgz --prefix=vidret_jax/ -o "${archive}" HEAD ||
    return
  run gcloud compute tpus tpu-vm scp "${archive}" "${name}:vidret_jax.tgz" \
    --zone="${zone}" --worker=all || return
  local ssh=(gcloud compute tpus tpu-vm ssh "${name}" --zone="${zone}"
    --worker=all)
  if "${dry_run}"; then
    printf '%s ' "${ssh[@]}" "--command='"
    printf '\n%s\n' "${command}'"
  else
    "${ssh[@]}" --command="${command}"
  fi
}

finished() {
  gcloud storage ls "gs://${bucket}/runs/${name}/results.json" >/dev/null 2>&1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if "${dry_run}"; then
  echo "# ask for the TPU (again after each preemption), wait until ACTIVE:"
  ask
  echo "# then, until gs://${bucket}/runs/${name}/results.json is there:"
  train "$@"
  echo "# at the end:"
  give_back
  exit 0
fi

until finished; do
  now="$(state)"
  echo "$(date '+%F %T') ${name}: ${now}"
  case "${now}" in
    NONE) ask ;;
    FAILED | SUSPENDED) give_back ;;
    ACTIVE)
      code=0
      train "$@" || code=$?
      finished && break
      # A preemption shows a little later than the lost connection.
      sleep "${wait}"
      if [[ "$(state)" == ACTIVE ]]; then
        echo "${name} is still there, so this was not a preemption (exit" \
          "status ${code}); see the messages above. To give it back:" >&2
        dry_run=true give_back >&2
        exit "$((code ? code : 1))"
      fi
      continue
      ;;
  esac
  sleep "${wait}"
done
[[ "$(state)" == NONE ]] || give_back
echo "Finished: gs://${bucket}/runs/${name}/results.json"
