#!/usr/bin/env bash
# Runs MLflow on the head of a cluster, and restarts it when it exits.
# `mlflow.sh` starts it, if it is not running; `mlflow.sh stop` stops it.
#   MLFLOW_DATABASE    default: sqlite in ~/mlflow; or postgresql://...
#   MLFLOW_ARTIFACTS   default: ~/mlflow/artifacts; or a shared folder, s3://... or gs://...
# It listens on localhost only. After `ssh -L 5000:localhost:5000 HEAD` it is at http://localhost:5000.
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

# Stop all processes of the server, even if its main process or the restart loop was killed.
end_server() {
  local group
  group=$(cat "$folder/server.pid" 2>/dev/null) || return 0
  for signal in TERM KILL; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      pgrep -g "$group" -f mlflow >/dev/null || break 2
      kill "-$signal" -- "-$group" 2>/dev/null || break 2
      sleep 0.3 # `ray stop` waits for five seconds in total
    done
  done
  rm -f "$folder/server.pid"
}

keep() {
  exec 9>"$folder/lock"
  flock -n 9 || exit 0                # another keeper is running
  printf ray::mlflow >/proc/self/comm # `ray stop`, and so `ray down`, stops processes with such names
  echo "$BASHPID" >"$folder/keeper.pid"
  trap 'end_server; exit 0' TERM INT
  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # saves eight processes that a study does not need
  while true; do
    end_server
    setsid python -m mlflow server --host 127.0.0.1 --port "$port" --workers 1 --uvicorn-opts '--log-level warning' \
      --backend-store-uri "${MLFLOW_DATABASE:-sqlite:///$folder/mlflow.db}" \
      --artifacts-destination "${MLFLOW_ARTIFACTS:-$folder/artifacts}" 9>&- &
    echo $! >"$folder/server.pid"
    status=0
    wait $! || status=$?
    echo "$(date -Is) MLflow exited with status $status and restarts in 2 s"
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
