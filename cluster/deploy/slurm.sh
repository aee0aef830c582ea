#!/bin/bash
# Caliber on Slurm: a Ray cluster for one job, on storage that all nodes share. From the folder that paths in the recipe
# are relative to:
#
#     sbatch cluster/deploy/slurm.sh configs/emocaliber/4nodes.yaml output=/shared/runs/emocaliber
#
# Before its time is up the run is told to stop, ends its step and writes a checkpoint; so it does after
# `scancel --batch --signal=TERM JOB`. Submitted again, it goes on from there. A bare scancel gives it no time.
#
# CHANGE: what the recipe wants (`caliber check`), and what your cluster calls it
#SBATCH --job-name=caliber
#SBATCH --output=caliber-%j.log
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@1500

set -euo pipefail
if (($# == 0)); then
    echo "usage: sbatch $0 RECIPE [KEY=VALUE ...]" >&2
    exit 2
fi

# CHANGE: how `caliber` and `ray` come into the PATH
if [[ -d .venv ]]; then export PATH="$PWD/.venv/bin:$PATH"; fi

seconds_to_stop=1200 # CHANGE: see docs/jobs.md, "Stop, and go on"; less than --signal's
port=${RAY_PORT:-6379}
dashboard_port=${RAY_DASHBOARD_PORT:-8265}

# Whoever has the token runs code as you: it is this job's, in a file that you alone can read, and on no command line.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/caliber-$SLURM_JOB_ID.token"
mkdir -p "$HOME/.ray"
(umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH")
export RAY_TMPDIR="/tmp/caliber-$SLURM_JOB_ID" # /tmp/ray may be somebody else's

trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} # where this script runs, so that the dashboard's loopback is its own
each=(--ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK")

srun "${each[@]}" --nodes=1 --nodelist="$head" \
    ray start --head --block --port="$port" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" \
    --disable-usage-stats &
for ((tries = 60; ; tries--)); do
    # The dashboard, which takes the job, comes up after the head itself.
    if ray health-check --address "$head:$port" 2>/dev/null &&
        ray job list --address "http://127.0.0.1:$dashboard_port" &>/dev/null; then break; fi
    if ((tries == 0)); then
        echo "the head on $head does not answer on ports $port and $dashboard_port" >&2
        exit 1
    fi
    sleep 5
done
if ((${#nodes[@]} > 1)); then
    srun "${each[@]}" --nodes=$((${#nodes[@]} - 1)) --exclude="$head" \
        ray start --block --address="$head:$port" --disable-usage-stats &
fi

export RAY_ADDRESS="http://127.0.0.1:$dashboard_port"
job="caliber-$SLURM_JOB_ID"
# shellcheck disable=SC2016 # the variables are the inner shell's
ray job submit --submission-id "$job" \
    --runtime-env-json "{\"env_vars\": {\"RAY_JOB_STOP_WAIT_TIME_S\": \"$seconds_to_stop\"}}" \
    -- bash -c 'cd "$0" && exec caliber pipeline "$@"' "$PWD" "$@" &
submitted=$!
trap 'ray job stop "$job" || true' TERM # it may have ended meanwhile
status=0
wait "$submitted" || status=$?
if ((status > 128)); then # it was the signal that ended the wait; the job has been stopped since
    status=0
    wait "$submitted" || status=$?
fi
exit "$status"
