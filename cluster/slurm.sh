#!/usr/bin/env bash
# A study on the nodes of a Slurm allocation: a Ray of its own, for as long as the job.
#
# Fill in:  FILL_IN_PARTITION below, and what your site asks for besides (account, constraint, modules).
#           `idenctl cluster check cluster/slurm.sh` says what is left, wrong or unsafe.
# Needs:    this project installed in .venv of the folder you submit from (`make demo` does it), on a disk that all
#           nodes see, as they see your home folder; the store there, too, or in a bucket.
# Costs:    what your site counts for whole nodes: they are taken --exclusive, for the ports are Ray's own choice.
# Start:    sbatch cluster/slurm.sh studies/oulu_idrate.yaml [other options of `idenctl study run`]
# Reach:    tail -f idenctl-JOB.log; there is no dashboard, for no job is submitted to this Ray.
# Stop:     scancel --signal=INT --batch JOB    (state is saved; sbatch again goes on from it)
#
# Ray asks for a token, made for this job and readable by you alone, and does not encrypt: the nodes' network is to be
# your site's own. Nothing of it is on a command line, where others would see it.

#SBATCH --job-name=idenctl
#SBATCH --partition=FILL_IN_PARTITION
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --signal=B:INT@300
#SBATCH --output=idenctl-%j.log

set -euo pipefail
umask 077
study=${1:?usage: sbatch cluster/slurm.sh STUDY [OPTION...]}
shift
export PATH=$PWD/.venv/bin:$PATH

mkdir -p ~/.ray
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.ray/slurm-$SLURM_JOB_ID
openssl rand -hex 32 > "$RAY_AUTH_TOKEN_PATH"
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; wait; rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
address=$head:6379

# Waits until so many nodes are there, as long as none of those that were started has ended.
joined() {
  for _ in $(seq 60); do
    sleep 2
    kill -0 "${started[@]}" 2>/dev/null || break
    [ "$(present 2>/dev/null)" = "$1" ] && return
  done
  echo "error: $1 of ${#nodes[@]} nodes were to have joined Ray, and did not; see above" >&2
  exit 1
}
present() {
  timeout 60 python - "$address" <<'PYTHON'
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
PYTHON
}

srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" --nodelist="${nodes[0]}" \
  ray start --head --node-ip-address="$head" --port=6379 --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID" \
  --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block &
started+=($!)
joined 1
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" --nodelist="$node" \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block &
  started+=($!)
done
joined "${#nodes[@]}"  # all, or none: a study is cut to what it finds when it starts

# Slurm's signal, five minutes before the time is up, is passed on, and waited for.
idenctl study run "$study" --address "$address" "$@" &
study=$!
trap 'kill -TERM "$study"' INT TERM  # in the background a script's processes ignore SIGINT
status=0
wait "$study" || status=$?
while kill -0 "$study" 2>/dev/null; do
  status=0
  wait "$study" || status=$?
done
exit "$status"
