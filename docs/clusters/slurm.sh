#!/usr/bin/env bash
# A Ray cluster inside a Slurm allocation: sbatch slurm.sh my_sweep.yaml. Submit it again to go on.
#SBATCH --job-name=twophase
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120  # so that the driver leaves the study whole
set -euo pipefail
space=$1
root=${2:-/shared/runs}
# shellcheck disable=SC1091 - the environment on the shared file system
source "${TWOPHASE_ENV:-$HOME/twophase/.venv}/bin/activate"
export OMP_NUM_THREADS=1 RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null  # in ~/.ray, which all nodes must see

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=6379

srun --nodes=1 --ntasks=1 -w "${nodes[0]}" \
    ray start --head --node-ip-address="$head" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 15
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="${nodes[0]}" \
        ray start --address="$head:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
    sleep 15
fi

twophase run "$space" --root "$root" --address "$head:$port" --gpus-per-trial auto &
driver=$!
trap 'kill -TERM "$driver"' TERM
status=0
wait "$driver" || status=$?
# A signal ends `wait`, not the driver.
if kill -0 "$driver" 2>/dev/null; then wait "$driver" || status=$?; fi
exit "$status"
