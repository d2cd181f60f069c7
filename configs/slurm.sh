#!/bin/bash
# Several machines under Slurm, here with CPU ranks: sbatch configs/slurm.sh configs/gsm8k.cfg
# With GPUs: ntasks-per-node is their number, and #SBATCH --gpus-per-task=1.
# The folder of the run, the model and the data must be on a file system that all nodes share.
#SBATCH --job-name=dapo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
# --signal: five minutes before the end the ranks save a checkpoint; the same command then goes on from there.
set -euo pipefail
cfg=${1:?usage: sbatch configs/slurm.sh CONFIG [ARGUMENTS]}
shift
# --mpi=pmix: so that Open MPI finds its ranks. --kill-on-bad-exit: when a rank dies, the others leave.
exec srun --mpi=pmix --kill-on-bad-exit=1 ./dapo_train "$cfg" --set "parallel.dp=$SLURM_NTASKS" "$@"
