#!/usr/bin/env bash
# MLflow on the head of a cluster, kept running. `mlflow.sh` starts it, once; `mlflow.sh stop` ends it.
#   MLFLOW_DATABASE    sqlite in ~/mlflow, or postgresql://...
#   MLFLOW_ARTIFACTS   ~/mlflow/artifacts, a folder of NFS, s3://... or gs://...
# It listens on loopback only: ssh -L 5000:localhost:5000 HEAD shows it at http://localhost:5000.
set -euo pipefail

folder=$HOME/mlflow
port=5000
mkdir -p "$folder"

server_answers() {
  local status
  { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
  printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
  read -r -t 5 _ status _ <&3 || status=none
  exec 3>&-
  [ "$status" = 200 ]
}

# All processes of a server, also where its first one was killed alone, or where a killed keeper left it behind.
end_server() {
  local group
  group=$(cat "$folder/server.pid" 2>/dev/null) || return 0
  for signal in TERM KILL; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      pgrep -g "$group" -f mlflow >/dev/null || break 2
      kill "-$signal" -- "-$group" 2>/dev/null || break 2
      sleep 0.3 # ray stop waits for five seconds in all
    done
  done
  rm -f "$folder/server.pid"
}

keep() {
  exec 9>"$folder/lock"
  flock -n 9 || exit 0                # somebody keeps it already
  printf ray::mlflow >/proc/self/comm # `ray stop` ends processes of such names, and `ray down` does nothing else
  echo "$BASHPID" >"$folder/keeper.pid"
  trap 'end_server; exit 0' TERM INT
  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # eight processes for what a study has no use for
  while true; do
    end_server
    setsid python -m mlflow server --host 127.0.0.1 --port "$port" --workers 1 --uvicorn-opts '--log-level warning' \
      --backend-store-uri "${MLFLOW_DATABASE:-sqlite:///$folder/mlflow.db}" \
      --artifacts-destination "${MLFLOW_ARTIFACTS:-$folder/artifacts}" 9>&- &
    echo $! >"$folder/server.pid"
    status=0
    wait $! || status=$?
    echo "$(date -Is) MLflow has ended with $status and starts again in 2 s"
    sleep 2 &
    wait $!
  done
}

case ${1:-start} in
start)
  setsid -f bash "$0" keep </dev/null >>"$folder/log" 2>&1
  for _ in $(seq 240); do
    if server_answers; then exit 0; fi
    sleep 0.5
  done
  echo "MLflow does not answer on port $port: $(tail -n 1 "$folder/log") (see $folder/log)" >&2
  exit 1
  ;;
keep) keep ;;
stop)
  if keeper=$(cat "$folder/keeper.pid" 2>/dev/null) && ! flock -n "$folder/lock" true; then
    kill "$keeper"
    flock -w 20 "$folder/lock" true
  fi
  ;;
*)
  echo "usage: mlflow.sh [start|stop]" >&2
  exit 2
  ;;
esac
