#!/usr/bin/env bash
# Starts a real S3 service for the tests, Ceph's gateway with one node, on 127.0.0.1: s3-gateway.sh FOLDER PORT MONPORT.
# All it has lies in FOLDER and in memory, or with OBJECT_STORE=bluestore in a sparse file there. It has two users: test (testkey, testsecret) and, without any right of its
# own, other (otherkey, othersecret). To stop it, kill the processes in FOLDER/*.pid.
set -euo pipefail
D=$1
PORT=$2
MONPORT=$3
# It ends with the process that started it, also if that is killed.
(
  while kill -0 $PPID; do sleep 1; done
  kill -9 $(cat "$D"/*.pid)
  rm -rf "$D"
) </dev/null >/dev/null 2>&1 &
mkdir -p "$D"/{mon,osd,mgr,run,log}
FSID=$(cat /proc/sys/kernel/random/uuid)
cat > "$D/ceph.conf" <<C
[global]
fsid = $FSID
mon host = v1:127.0.0.1:$MONPORT
auth cluster required = none
auth service required = none
auth client required = none
run dir = $D/run
log file = $D/log/\$name.log
admin socket = $D/run/\$name.asok
pid file = $D/\$name.pid
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon warn on pool no redundancy = false
mon allow pool delete = true
mon data = $D/mon
mgr data = $D/mgr
osd data = $D/osd
osd objectstore = ${OBJECT_STORE:-memstore}
bluestore block create = true
bluestore block size = 68719476736
memstore device bytes = 4294967296
osd memory target = 939524096
rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw enable usage log = false
rgw run sync thread = false
mon osd full ratio = 0.99
mon data avail crit = 1
mon data avail warn = 1
C
export CEPH_CONF="$D/ceph.conf"; c="-c $D/ceph.conf"
monmaptool --create --clobber --fsid "$FSID" --addv a "v1:127.0.0.1:$MONPORT" "$D/monmap" >/dev/null
ceph-mon $c --mkfs -i a --monmap "$D/monmap" --setuser root --setgroup root
ceph-mon $c -i a --setuser root --setgroup root
# The monitor refuses all requests at first, with EPERM or no answer, until its users are there.
retry() {
  for i in $(seq 60); do timeout 60 "$@" 2>"$D/last-error" && return; sleep 0.5; done
  echo "$*: $(cat "$D/last-error")" >&2
  return 1
}
retry ceph $c mon stat >/dev/null
ceph-mgr $c -i x --setuser root --setgroup root || true
OSDU=$(cat /proc/sys/kernel/random/uuid); ID=$(retry ceph $c osd new "$OSDU")
ceph-osd $c -i "$ID" --mkfs --osd-uuid "$OSDU" --setuser root --setgroup root >/dev/null 2>&1
# It fails now and then if the monitor has just begun.
for i in $(seq 10); do ceph-osd $c -i "$ID" --setuser root --setgroup root >/dev/null 2>&1 && break; sleep 0.5; done
for i in $(seq 60); do ceph $c osd stat 2>/dev/null | grep -q '1 up' && break; sleep 0.5; done
radosgw $c -n client.rgw --setuser root --setgroup root
for i in $(seq 120); do (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null && break; sleep 0.5; done
(exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null || { echo "the gateway did not come up; see $D/log" >&2; exit 1; }
for user in test other; do
  retry radosgw-admin $c user create --uid=$user --display-name=$user --access-key=${user}key --secret-key=${user}secret >/dev/null
done
