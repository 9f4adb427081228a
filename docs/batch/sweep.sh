#!/bin/bash
# Trains a net for every learning rate and seed, one thread each and as many at once as there are processors:
#
#     ./sweep.sh digits.yaml
#
# The same command again goes on with what was stopped or failed, and leaves alone what is done.
config=$1
out=runs/sweep
mkdir -p "$out"

# --joblog, --resume-failed: what exited with 0 is not started again; the rest is, and --resume goes on where it stopped
# --termseq: time for a checkpoint after Ctrl-C or SIGTERM; without, parallel kills its jobs after a third of a second
parallel --jobs "${JOBS:-$(nproc)}" --joblog "$out/jobs.log" --resume-failed --termseq TERM,10000,KILL,25 \
    mlp train "$config" "learning_rate.initial={1}" "seed={2}" \
    --out "$out/rate-{1}-seed-{2}" --resume --threads 1 --quiet \
    ::: 0.01 0.003 0.001 ::: 0 1 2 >/dev/null
code=$?

# the loss of each run that is done
for run in "$out"/*/; do
    [ -e "$run/summary.json" ] && echo "$run $(mlp eval "$run" --quiet | grep -w loss)"
done
exit "$code"
