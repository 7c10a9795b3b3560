#!/usr/bin/env bash
# What happens on the machine that trains. The other scripts copy this file there and call it; on
# your own machine use local.sh.
#
#   host.sh install EXTRAS [FROM]   a virtual environment with electra_jax[EXTRAS], made once.
#                                   FROM: a wheel beside this file, or anything pip takes after "@"
#                                   (git+https://...); left out: the package index
#   host.sh start ARGUMENTS         electra-jax pretrain ARGUMENTS in the background, unless it runs
#   host.sh follow                  its output until it ends; the last line is "[exit STATUS]"
#   host.sh first                   the name of the first host of this slice, by the machine's metadata
#   host.sh stop                    asks it to save and end, and returns when it has
#   host.sh settle                  the same for one whose peers have ended; not called a stop. Says how
#                                   it ended, and why if it was the one that failed
#
# Everything lies in ~/.electra_jax: env/, log (of the last start), exit (its status), and the
# variables that the program is given (environment, if there are any).
set -euo pipefail

home=${ELECTRA_HOME:-$HOME/.electra_jax}
mkdir -p "$home"
cd "$home"

# The lock is held by the program and its wrapper for as long as either lives, kill -9 included.
running() { [ -e lock ] && ! flock -n lock true; }

install() {
  local extras=$1 from=${2:-} spec="electra_jax[$1]" mark
  case $from in
    '') ;;
    *.whl) spec="electra_jax[$extras] @ file://$home/$from" ;;
    *) spec="electra_jax[$extras] @ $from" ;;
  esac
  mark=$spec
  if [ "${from%.whl}" != "$from" ]; then mark="$spec $(sha256sum "$from")"; fi
  if [ -x env/bin/electra-jax ] && [ "$(cat installed 2>/dev/null)" = "$mark" ]; then
    echo "electra_jax[$extras] is installed"
    return
  fi
  # uv brings a Python of its own: the images of TPU VMs have one that is too old for JAX.
  PATH=$HOME/.local/bin:$PATH
  command -v uv >/dev/null || python3 -m pip install --user --quiet uv ||
    { sudo apt-get -qq update && sudo apt-get -qq install -y python3-pip && python3 -m pip install --user --quiet uv; }
  rm -rf env installed
  uv venv --quiet --python 3.12 env
  uv pip install --quiet --python env/bin/python "$spec"
  printf '%s\n' "$mark" >installed
  echo "installed $spec"
}

start() {
  if running; then
    echo "electra-jax runs already"
    return
  fi
  rm -f exit pid asked
  printf '# %s electra-jax pretrain %s\n' "$(date -u +%FT%TZ)" "$*" >log
  # A session of its own, so that a closed connection does not end it. The wrapper outlives the
  # SIGTERM of a machine that shuts down, to note the status that the program ends with.
  # shellcheck disable=SC2016
  setsid bash -c '
    exec 9>lock; flock -n 9 || exit 0
    echo $$ >pid
    trap : TERM
    if [ -e environment ]; then set -a; . ./environment; set +a; fi
    code=0; env/bin/electra-jax pretrain "$@" || code=$?
    echo "$code" >exit
  ' electra-jax "$@" >>log 2>&1 </dev/null &
  # Not before the wrapper has the lock: a second start in this moment must see it.
  for _ in {1..100}; do
    if [ -e pid ] || [ -e exit ]; then return; fi
    sleep 0.05
  done
}

follow() {
  [ -e log ] || { echo "[exit lost]"; return; }
  tail -n +1 -f -s "${ELECTRA_TAIL_SECONDS:-1}" --pid="$(cat pid)" log 2>/dev/null || true
  if [ -e asked ]; then echo "[exit stopped]"; else echo "[exit $(cat exit 2>/dev/null || echo lost)]"; fi
}

first() {
  local from=http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints
  curl --silent --fail --header 'Metadata-Flavor: Google' "$from" | cut -d , -f 1
}

stop() {
  if running; then touch asked; fi
  finish
}

settle() {
  local code
  finish
  code=$(cat exit 2>/dev/null || echo lost)
  case $code in
    0 | 75 | 134 | lost) ;;
    *) tail -n 20 log ;;
  esac
  echo "[exit $code]"
}

finish() {
  local seconds=0
  running || return 0
  kill -TERM -- "-$(cat pid)"
  while running; do
    sleep "${ELECTRA_TAIL_SECONDS:-1}"
    seconds=$((seconds + 1))
    if [ "$seconds" -eq "${ELECTRA_SAVE_SECONDS:-300}" ]; then
      echo "electra-jax does not end; it is killed (the last checkpoint stays)"
      kill -KILL -- "-$(cat pid)"
    fi
  done
}

case ${1:-} in
  install | start | follow | first | stop | settle) "$@" ;;
  *) sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$0"; exit 2 ;;
esac
