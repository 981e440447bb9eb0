#!/usr/bin/env bash
# A SLURM allocation that starts Ray on its nodes, trains or goes on with a study, and ends.
#   sbatch docs/cluster/slurm.sh plan.toml          begins runs/NAME
#   sbatch docs/cluster/slurm.sh resume runs/NAME   goes on, after the time limit for example
#SBATCH --job-name=dqx
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --constraint=YOUR_KIND_OF_PROCESSOR
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

# For GPUs: #SBATCH --gpus-per-node=8, and dqx takes one worker a GPU by itself.
source .venv/bin/activate
export RAY_USAGE_STATS_ENABLED=0
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} port=6379

# The head's node trains too; one of its cores is left to the process that plans and writes.
srun --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --port=$port --num-cpus=$((SLURM_CPUS_PER_TASK - 1)) --block &
sleep 15
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 -w "$node" \
    ray start --address="$head:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
done
sleep 15

# This script runs on the first node. Two minutes before the time limit every worker writes a
# checkpoint, and the next allocation resumes.
dqx study "$@" --cluster "$head:$port" &
study=$!
trap 'kill -TERM $study' TERM
status=0
while kill -0 $study 2>/dev/null; do # a signal ends `wait` before the checkpoints are written
  wait $study && status=0 || status=$?
done
exit $status
