#!/bin/bash
#SBATCH --job-name=mlp
#SBATCH --time=01:00:00
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --output=%x-%j.log
# what is written before and after a requeue stands in one file
#SBATCH --open-mode=append
#SBATCH --requeue
# a minute before the time is over Slurm sends USR1 to this script (B:), which passes it on
#SBATCH --signal=B:USR1@60

# Trains for longer than a job may take: when the time is over the run is saved, the job is put back into the queue, and
# the next start goes on where the run stopped.
#
#     sbatch slurm.sh digits.yaml training.epochs=500

# The number of a job is the same after a requeue, and so is the run directory.
out="runs/$SLURM_JOB_NAME-$SLURM_JOB_ID"

time_is_over=
signalled=
trap 'time_is_over=yes; signalled=yes; kill -USR1 "$run"' USR1
trap 'signalled=yes; kill -TERM "$run"' TERM # scancel, or a job with more right to the machine

# In the background: bash does not look at signals while it waits for a command in the foreground.
mlp train "$@" --out "$out" --resume &
run=$!
while
    signalled=
    wait "$run"
    code=$?
    [ -n "$signalled" ] # then the signal ended the wait, not yet the run
do :; done

# 75: saved, there is more to do. All else is the end: 0 trained, 2 a mistake in the config, 3 in the data, and so on.
if [ "$code" -eq 75 ] && [ -n "$time_is_over" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
