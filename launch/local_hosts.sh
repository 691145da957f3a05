#!/usr/bin/env bash
# Several training processes on this machine, each with virtual CPU devices.
#
#   launch/local_hosts.sh [--dry_run] PROCESSES DEVICES_EACH -- ARGS
#   launch/local_hosts.sh 2 4 -- --config configs/ce_shapes.py --workdir runs/x
#
# Runs `python -m vidret_jax.main ARGS` PROCESSES times. The processes find
# each other through VIDRET_COORDINATOR, VIDRET_NUM_PROCESSES and
# VIDRET_PROCESS_ID, as on a cluster. PYTHON picks the interpreter (default:
# .venv/bin/python where it is there, else python3), VIDRET_PORT the port, GRACE
# the seconds between SIGTERM and SIGKILL after one process failed (20).
# The output of process 0 is shown as it is, the others' with their number.
set -euo pipefail

usage() {
  echo "usage: ${0} [--dry_run] PROCESSES DEVICES_EACH -- ARGS" >&2
  echo "expected ${1}" >&2
  exit 2
}

dry_run=false
if [[ "${1:-}" == --dry_run ]]; then
  dry_run=true
  shift
fi
[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] ||
  usage "PROCESSES, a positive integer, found '${1:-}'"
[[ "${2:-}" =~ ^[1-9][0-9]*$ ]] ||
  usage "DEVICES_EACH, a positive integer, found '${2:-}'"
[[ "${3:-}" == -- ]] || usage "'--' after DEVICES_EACH, found '${3:-}'"
processes="${1}"
devices="${2}"
shift 3

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-}"
if [[ -z "${python}" ]]; then
  python=python3
  [[ -x "${root}/.venv/bin/python" ]] && python="${root}/.venv/bin/python"
fi
free_port='import socket
with socket.socket() as s:
  s.bind(("localhost", 0))
  print(s.getsockname()[1])'
port="${VIDRET_PORT:-$("${python}" -c "${free_port}")}"

export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=${devices}"
export VIDRET_COORDINATOR="localhost:${port}"
export VIDRET_NUM_PROCESSES="${processes}"

if "${dry_run}"; then
  for ((i = 0; i < processes; i++)); do
    printf '%q ' JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS# }" \
      "VIDRET_COORDINATOR=${VIDRET_COORDINATOR}" \
      "VIDRET_NUM_PROCESSES=${processes}" "VIDRET_PROCESS_ID=${i}" \
      "${python}" -m vidret_jax.main "$@"
    echo
  done
  exit 0
fi

pids=()
# A signal to the launcher reaches every process: on SIGTERM each one saves.
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((i = 0; i < processes; i++)); do
  if ((i == 0)); then
    VIDRET_PROCESS_ID=0 "${python}" -m vidret_jax.main "$@" &
  else
    VIDRET_PROCESS_ID="${i}" "${python}" -m vidret_jax.main "$@" \
      > >(sed -u "s/^/[${i}] /") 2> >(sed -u "s/^/[${i}] /" >&2) &
  fi
  pids+=("$!")
done

# The first failure ends the rest, which would otherwise wait in a collective
# for the lost process: by SIGTERM, and by SIGKILL after GRACE seconds.
grace="${GRACE:-20}"
status=0
failed_at=0
while ((${#pids[@]})); do
  alive=()
  for pid in "${pids[@]}"; do
    if kill -0 "${pid}" 2>/dev/null; then
      alive+=("${pid}")
      continue
    fi
    code=0
    wait "${pid}" || code=$?
    if ((code != 0 && status == 0)); then
      status="${code}"
      failed_at="${SECONDS}"
      kill -TERM "${pids[@]}" 2>/dev/null || true
    fi
  done
  pids=("${alive[@]}")
  ((${#pids[@]})) || break
  if ((status != 0 && SECONDS - failed_at >= grace)); then
    kill -KILL "${pids[@]}" 2>/dev/null || true
  fi
  sleep 0.2
done
exit "${status}"
