#!/usr/bin/env bash
# A run on Slurm, Ray on all of the job's nodes, the first of them the head:
#
#     sbatch --nodes=4 --gpus-per-node=8 cluster/slurm.sh configs/celeba.yaml preset=modern key=value…
#
# From the root of the repository, on a file system that all nodes see, with its .venv. Preempted or
# at its time limit, the run is saved and the job queued again; the same command goes on with it.
#SBATCH --job-name=vmcmc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
set -euo pipefail

if [ $# -eq 0 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "usage: sbatch [options] cluster/slurm.sh CONFIG [key=value ...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-$PWD}"
# shellcheck source=cluster/environment.sh
. cluster/environment.sh slurm
export PATH=$PWD/.venv/bin:$PATH

# A token of this job's own, which only its owner can read.
token=$HOME/.ray/slurm_token_$SLURM_JOB_ID
(umask 077 && mkdir -p "$HOME/.ray" && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token")
trap 'rm -f "$token"' EXIT
export RAY_AUTH_TOKEN_PATH=$token

# This script runs on the first node. Its address on the interface of the default route:
address=$(ip -o -4 addr show dev "$NCCL_SOCKET_IFNAME" scope global \
  | sed -n 's/.* inet \([0-9.]*\).*/\1/p' | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

workers=$((SLURM_JOB_NUM_NODES * ${SLURM_GPUS_ON_NODE:-1}))
settings=(resources.address=auto "resources.workers=$workers")

# `ray symmetric-run` starts the head here and a node on every other, runs the command on the
# head, and stops Ray with it.
srun --kill-on-bad-exit=1 \
  ray symmetric-run --address "$address:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --disable-usage-stats -- \
  python -m vmcmc_dist train "$1" "${settings[@]}" "${@:2}" &
step=$!

# Slurm's warning reaches this shell alone; the trainer, told of it, saves and ends.
warned=
# shellcheck disable=SC2329  # called by the trap below
warn() {
  warned=yes
  echo "Slurm will end this job: the run is being saved"
  pkill -TERM --uid "$(id -u)" --full '^[^ ]*python[0-9.]* -m vmcmc_dist train' || true
}
trap warn TERM

status=0
wait "$step" || status=$?
if [ -n "$warned" ]; then
  wait "$step" && status=0 || status=$?
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
