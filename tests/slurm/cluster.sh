#!/usr/bin/env bash
# A real, small Slurm cluster on one machine, for tests: slurmctld, five slurmd, slurmdbd with MariaDB, munge.
#
#   cluster.sh install         the packages (apt, root), and the host name as a name of 127.0.0.1 where it is none
#   cluster.sh start DIR       write the configuration below DIR and start every daemon that is not running
#   cluster.sh status DIR      what is up; exit code 0 when every daemon is and every node can take jobs
#   cluster.sh env DIR         what clients need:  eval "$(cluster.sh env DIR)"
#   cluster.sh stop DIR        cancel all jobs and stop the daemons that were started for DIR
#
# Faults, each by kill -9 and with a way back:
#   cluster.sh node-kill DIR n4      slurmd and everything that runs on the node;  node-start DIR n4
#   cluster.sh ctld-kill DIR         the controller;                               ctld-start DIR
#   cluster.sh dbd-kill DIR          the accounting;                               dbd-start DIR
#
# DIR must have less than 60 characters (unix sockets). Several clusters may live side by side on other ports.
# Settings, read by `start`: CLUSTER_PORT (17817; 20 ports from there) and CLUSTER_MAX_ARRAY (4).
# Nothing outside DIR is touched but by `install`; no port is open on another address than 127.x.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

PACKAGES=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core mariadb-client-core)
NODES=(n1 n2 n3 n4 n5)
HERE=$(cd "$(dirname "$0")" && pwd)

say() { printf 'cluster: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

within() { # SECONDS COMMAND...: whether the command succeeds in time
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# --- install -------------------------------------------------------------------------------------------------

cmd_install() {
  ((EUID == 0)) || die "the packages and the daemons need root"
  command -v apt-get >/dev/null || die "there is no apt-get: the packages are Debian's and Ubuntu's"
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
  resolves_to_loopback || add_host_name
  resolves_to_loopback || die "the host name $(hostname) does not resolve to 127.x: see /etc/hosts"
}

apt_install() {
  local policy=/usr/sbin/policy-rc.d # without it the packages would start system services of their own
  if [[ ! -e $policy ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
  fi
  apt-get update -q || say "apt-get update failed; trying with the lists that are there"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" || die "apt-get install failed"
}

resolves_to_loopback() { [[ $(getent ahostsv4 "$(hostname)" | head -n 1) == 127.* ]]; }

add_host_name() { # first, so that it counts; written in place, for a container may have mounted the file
  local before; before=$(cat /etc/hosts)
  printf '127.0.0.1 %s\n%s\n' "$(hostname)" "$before" >/etc/hosts
}

# --- start ---------------------------------------------------------------------------------------------------

cmd_start() {
  command -v slurmctld >/dev/null || die "run 'install' first"
  resolves_to_loopback || die "the host name does not resolve to 127.x: run 'install'"
  is_up slurmctld || write_configuration
  start_munged; start_mariadbd; cmd_dbd_start; cmd_ctld_start
  # A controller writes what it knows of accounts when it ends in order, and every five minutes. Without that file it
  # does not start while slurmdbd is away, which is what a test asks of it: a first life, and then the real one.
  if [[ ! -s $D/state/assoc_mgr_state ]]; then end slurmctld; cmd_ctld_start; fi
  local node
  for node in "${NODES[@]}"; do start_node "$node"; done
  if ! within 15 nodes_are_ready; then # one may be down from an earlier life
    for node in "${NODES[@]}"; do scontrol update nodename="$node" state=resume >/dev/null 2>&1 || true; done
    within 120 nodes_are_ready || { sinfo -N -l >&2; die "the nodes did not come up: see $D/log"; }
  fi
  say "up in $D"
}

write_configuration() {
  local port=${CLUSTER_PORT:-17817} nodes="" gpus="AutoDetect=off" node i
  mkdir -p "$D"/{etc,run,log,state,spool,mysql,dev}
  chmod 700 "$D"
  # Pretended GPUs: slurmd wants character devices and follows links. Jobs get CUDA_VISIBLE_DEVICES from them.
  for i in 0 1; do ln -sfn /dev/null "$D/dev/gpu$i"; done
  for i in "${!NODES[@]}"; do
    node=${NODES[i]}
    mkdir -p "$D/spool/$node"
    nodes+="NodeName=$node NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 10 + i)) "
    nodes+="CPUs=4 RealMemory=32000 Gres=gpu:2"$'\n'
    gpus+=$'\n'"NodeName=$node Name=gpu File=$D/dev/gpu[0-1]"
  done
  (umask 077; for i in slurm slurmdbd; do
    awk -v nodes="$nodes" '$0 == "@NODES@" { printf "%s", nodes; next } { print }' "$HERE/etc/$i.conf" |
      sed "s|@DIR@|$D|g; s|@HOST@|$(hostname -s)|g; s|@PORT@|$port|g; s|@DBD_PORT@|$((port + 1))|g
           s|@MAX_ARRAY@|${CLUSTER_MAX_ARRAY:-4}|g" >"$D/etc/$i.conf"
  done)
  echo "$gpus" >"$D/etc/gres.conf"
}

start_munged() {
  is_up munged && return
  [[ -s $D/etc/munge.key ]] || (umask 077; head -c 1024 /dev/urandom >"$D/etc/munge.key")
  rm -f "$D"/run/munge.socket*
  munged --force --key-file="$D/etc/munge.key" --socket="$D/run/munge.socket" --pid-file="$D/run/munged.pid" \
    --log-file="$D/log/munged.log" --seed-file="$D/state/munge.seed" --num-threads=2 2>>"$D/log/munged.log"
  within 120 munge -n --socket "$D/run/munge.socket" || die "munged did not start: see $D/log"
}

start_mariadbd() { # no network, no password: root by the identity of the unix socket's peer
  is_up mariadbd && return
  local common=(--no-defaults --user=root --datadir="$D/mysql")
  [[ -d $D/mysql/mysql ]] || mariadb-install-db "${common[@]}" --auth-root-authentication-method=socket \
    --skip-test-db --skip-name-resolve >"$D/log/mariadb-install.log" 2>&1 || die "no database: see $D/log"
  setsid mariadbd "${common[@]}" --socket="$D/run/mysql.sock" --pid-file="$D/run/mariadbd.pid" \
    --log-error="$D/log/mariadbd.log" --skip-networking --skip-name-resolve --skip-log-bin \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 </dev/null >/dev/null 2>&1 &
  within 240 mariadb --no-defaults --socket="$D/run/mysql.sock" -u root -e 'select 1' ||
    die "mariadbd did not start: see $D/log"
}

cmd_dbd_start() {
  is_up slurmdbd && return
  MYSQL_UNIX_PORT="$D/run/mysql.sock" slurmdbd
  within 240 sacctmgr -n show cluster || die "slurmdbd did not start: see $D/log"
  sacctmgr -n -P show cluster format=cluster | grep -qx test || sacctmgr -i add cluster test >/dev/null
}

cmd_ctld_start() {
  is_up slurmctld && return
  slurmctld
  within 240 controller_answers || die "slurmctld did not start: see $D/log"
}

start_node() { is_up slurmd "$1" || slurmd -N "$1"; }
cmd_node_start() { start_node "$1"; within 240 nodes_are_ready || die "the nodes are not ready: see $D/log"; }

controller_answers() { scontrol ping | grep -q 'is UP'; }
nodes_are_ready() {
  local states; states=$(sinfo -h -N -o '%N %T' | sort -u) || return 1
  [[ $(grep -cE ' (idle|mixed|allocated|completing)$' <<<"$states") == "${#NODES[@]}" ]]
}

# --- status, stop, faults ------------------------------------------------------------------------------------

is_up() { # DAEMON [NODE]: its pid file names a living process of that name, started for DIR
  local pid; pid=$(cat "$D/run/${2:-$1}.pid" 2>/dev/null) && [[ -n $pid ]] || return 1
  [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$1" ]] && ! is_gone "$pid" &&
    grep -qzxF "SLURM_CONF=$SLURM_CONF" "/proc/$pid/environ"
}

is_gone() { # a zombie counts: whoever reaps the daemons may be late
  [[ ! -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

end() { # DAEMON [NODE]: SIGTERM, and SIGKILL where that does not help
  is_up "$@" || return 0
  local pid; pid=$(cat "$D/run/${2:-$1}.pid")
  kill "$pid" 2>/dev/null || return 0
  within 20 is_gone "$pid" || { say "$1 ignored SIGTERM"; kill -9 "$pid"; }
}

kill_9() { # DAEMON [NODE]
  is_up "$@" || die "$* is not running"
  kill -9 "$(cat "$D/run/${2:-$1}.pid")"
}

job_processes() { # [NODE]: of the jobs of this cluster: the processes that start jobs first, then the jobs
  local file pid parent starters="" jobs=""
  for file in $(grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null); do
    grep -qzx "SLURMD_NODENAME=${1:-n[0-9]*}" "$file" 2>/dev/null || continue
    pid=${file#/proc/}; pid=${pid%/environ}
    jobs+="$pid "
    parent=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || continue
    [[ $(cat "/proc/$parent/comm" 2>/dev/null) != slurmstepd ]] || starters+="$parent "
  done
  echo "$starters$jobs"
}

kill_jobs() { local pid; for pid in $(job_processes "$@"); do kill -9 "$pid" 2>/dev/null || true; done; }

cmd_node_kill() { kill_9 slurmd "$1"; kill_jobs "$1"; }
cmd_ctld_kill() { kill_9 slurmctld; }
cmd_dbd_kill() { kill_9 slurmdbd; }

cmd_status() {
  local daemon node down=0
  for daemon in munged mariadbd slurmdbd slurmctld; do
    if is_up $daemon; then echo "$daemon is up"; else echo "$daemon is down"; down=1; fi
  done
  for node in "${NODES[@]}"; do
    if is_up slurmd "$node"; then echo "$node is up"; else echo "$node is down"; down=1; fi
  done
  ((down == 0)) && nodes_are_ready
}

cmd_stop() {
  local node
  if is_up slurmctld; then
    timeout 10 scancel --user=root || true
    within 15 no_jobs || true
  fi
  end slurmctld
  for node in "${NODES[@]}"; do end slurmd "$node"; done
  kill_jobs
  end slurmdbd; end mariadbd; end munged
}
no_jobs() { [[ -z $(timeout 10 squeue -h) ]]; }

cmd_env() { echo "export SLURM_CONF=$SLURM_CONF"; }

# -------------------------------------------------------------------------------------------------------------

command=${1:-}
case $command in
  install) cmd_install; exit ;;
  start | status | env | stop | ctld-kill | ctld-start | dbd-kill | dbd-start) ;;
  node-kill | node-start) [[ " ${NODES[*]} " == *" ${3:-} "* ]] || die "which node? one of ${NODES[*]}" ;;
  *) awk 'NR > 1 && !/^#/ { exit } NR > 1' "$0"; exit 2 ;;
esac
[[ -n ${2:-} ]] || die "which folder?"
[[ $command != start ]] || mkdir -p "$2"
D=$(cd "$2" && pwd -P)
((${#D} < 60)) || die "the folder's path is too long for unix sockets (60 characters): $D"
export SLURM_CONF=$D/etc/slurm.conf
"cmd_${command//-/_}" "${3:-}"
