#!/usr/bin/env bash
# Starts a real Elasticsearch for tests: run.sh [PORT] [DATADIR]
# Stays in the foreground and prints "READY http://127.0.0.1:PORT" once it answers. See README.md.
# run.sh --fetch only downloads and assembles the node.
# With ES_FOLLOW_STDIN=1 the node stops when standard input ends, so it never outlives who started it; DATADIR is then
# removed unless ES_KEEP_DATA=1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
port=${1:-9200}
data=${2:-}
version=8.19.13
cache=${EVERFLAME_ES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/everflame-es}
home=$cache/elasticsearch-$version
heap=${ES_HEAP:-1g}
license=${ES_LICENSE:-trial}
extras=${ES_EXTRAS:-1}
fast=${ES_FAST_START:-1}
password=${ES_PASSWORD:-}
follow=${ES_FOLLOW_STDIN:-0}

say() { printf '%s\n' "$*" >&2; }
die() { say "run.sh: $*"; exit 1; }

jdk=${ES_JAVA_HOME:-${JAVA_HOME:-}}
if [ -z "$jdk" ]; then
  java=$(command -v java) || die "no java found; install openjdk-17-jdk-headless"
  jdk=$(dirname "$(dirname "$(readlink -f "$java")")")
fi
[ -x "$jdk/bin/java" ] || die "no java in $jdk"

# Fetches and assembles the node. Everything happens in a scratch folder that is renamed when complete.
build() {
  command -v mvn >/dev/null || die "no mvn found; install maven"
  local scratch=$cache/build.$$
  rm -rf "$scratch"
  mkdir -p "$scratch"
  say "run.sh: first use, fetching Elasticsearch $version (about 1.1 GB to download, 120 MB kept)"
  # A private download folder, so that the large archives can be dropped afterwards.
  mvn -q -B -f "$here/pom.xml" -Dmaven.repo.local="$scratch/repo" -Dinto="$scratch" package >&2
  mv "$scratch/server/elasticsearch-$version" "$scratch/home"
  cp -R "$scratch"/modules/*/elasticsearch/modules/. "$scratch/home/modules/"
  chmod -R go+rX "$scratch/home"
  rm -rf "$home"
  mv "$scratch/home" "$home"
  rm -rf "$scratch"
}

# The stand-ins in extras/ are compiled again whenever their source has changed.
compile_extras() {
  local target=$home/plugins/everflame-extras mark=$cache/extras.sum sum
  if [ "$extras" != 1 ]; then
    rm -rf "$target"
    return
  fi
  sum=$(cat "$here"/extras/* | cksum)
  if [ -f "$target/extras.jar" ] && [ "$(cat "$mark" 2>/dev/null)" = "$sum" ]; then return; fi
  [ -x "$jdk/bin/javac" ] || die "no javac in $jdk; install openjdk-17-jdk-headless, or set ES_EXTRAS=0"
  local classes=$cache/classes.$$ output
  mkdir -p "$classes" "$target"
  output=$("$jdk/bin/javac" -nowarn -proc:none --release 17 -d "$classes" \
    -cp "$home/lib/*:$home/modules/x-pack-core/*" "$here/extras/ExtrasPlugin.java" 2>&1) || { say "$output"; die "the stand-ins do not compile"; }
  "$jdk/bin/jar" cf "$target/extras.jar" -C "$classes" .
  cp "$here/extras/plugin-descriptor.properties" "$target/"
  rm -rf "$classes"
  printf '%s\n' "$sum" > "$mark"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -x "$home/bin/elasticsearch" ] || build
compile_extras
flock -u 9
exec 9>&-
if [ "$port" = --fetch ]; then exit 0; fi

# Standard input stays open as long as the starter lives, however it ends. The watcher needs a descriptor of its own: the
# shell gives /dev/null to what runs in the background.
watcher=
if [ "$follow" = 1 ]; then
  exec 8<&0
  (while read -r _ <&8; do :; done; kill -TERM $$ 2>/dev/null) &
  watcher=$!
  exec 8<&-
fi

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then die "port $port is taken"; fi
if [ -z "$data" ]; then data=$(mktemp -d "${TMPDIR:-/tmp}/es-data.XXXXXX"); fi
mkdir -p "$data"
data=$(cd "$data" && pwd)
mkdir -p "$data/config" "$data/data" "$data/logs" "$data/tmp" "$data/repo"
cp "$home/config/jvm.options" "$data/config/"
cat > "$data/config/log4j2.properties" <<'CONF'
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
CONF
cat > "$data/config/elasticsearch.yml" <<CONF
cluster.name: everflame-test
node.name: test
path.data: $data/data
path.logs: $data/logs
path.repo: ["$data/repo"]
network.host: 127.0.0.1
http.port: $port
transport.port: 0
discovery.type: single-node
action.destructive_requires_name: false
cluster.routing.allocation.disk.threshold_enabled: false
xpack.security.enabled: $([ -n "$password" ] && echo true || echo false)
xpack.license.self_generated.type: $license
CONF

options="-Xms$heap -Xmx$heap -Xlog:disable -Xlog:all=warning:stderr"
if [ "$fast" = 1 ]; then options="$options -XX:TieredStopAtLevel=1"; fi
export ES_JAVA_HOME=$jdk ES_PATH_CONF=$data/config ES_TMPDIR=$data/tmp ES_JAVA_OPTS="$options ${ES_JAVA_OPTS:-}"
unset JAVA_HOME
log=$data/logs/console.log

login=()
if [ -n "$password" ]; then
  login=(-u "elastic:$password")
  rm -f "$data/config/elasticsearch.keystore"
  bash "$home/bin/elasticsearch-keystore" create >/dev/null
  printf '%s' "$password" | bash "$home/bin/elasticsearch-keystore" add -x bootstrap.password >/dev/null
fi

# Elasticsearch refuses to run as root. A user namespace gives it another user id without changing any file owner.
wrap=()
if [ "$(id -u)" = 0 ]; then
  if unshare --user --map-user=1000 --map-group=1000 true 2>/dev/null; then
    wrap=(unshare --user --map-user=1000 --map-group=1000 --)
  else
    chown -R 65534:65534 "$data"
    wrap=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
    "${wrap[@]}" test -r "$home/lib/elasticsearch-$version.jar" || die "user 65534 cannot read $home; set EVERFLAME_ES_CACHE to a readable folder"
  fi
fi

${wrap[@]+"${wrap[@]}"} bash "$home/bin/elasticsearch" > "$log" 2>&1 < /dev/null &
server=$!
finish() {
  kill "$server" ${watcher:+"$watcher"} 2>/dev/null || true
  if [ "$follow" = 1 ]; then
    wait "$server" 2>/dev/null || true
    [ "${ES_KEEP_DATA:-0}" = 1 ] || rm -rf "$data"
  fi
}
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; exit 0' TERM INT HUP
trap finish EXIT

limit=${ES_START_LIMIT:-300}
started=$SECONDS
until curl -s --noproxy '*' -o /dev/null -f -m 5 ${login[@]+"${login[@]}"} "http://127.0.0.1:$port/_cluster/health?wait_for_status=yellow&timeout=4s"; do
  kill -0 "$server" 2>/dev/null || { tail -n 30 "$log" >&2; die "Elasticsearch ended while starting; see $log"; }
  [ $((SECONDS - started)) -lt "$limit" ] || { tail -n 30 "$log" >&2; die "no answer after $limit s; see $log"; }
  sleep 0.3
done
echo "READY http://127.0.0.1:$port"
wait "$server"
