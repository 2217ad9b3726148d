#!/bin/sh
# Speaks the protocol of `regauge serve --machine` and `regauge drive` without a broker, for tests of the experiment.
# A test starts it through a symbolic link; behaviour.sh beside that link can change any variable below, print to
# stderr, sleep or exit. It knows $verb and $arm ("probe", "pilot" or "knee" outside of runs).
set -u
here=$(dirname "$0")
verb=$1
stack= settings= data= out= options= stamps=
shift
while [ $# -gt 0 ]; do
    case $1 in
    --stack) stack=$2; shift ;;
    --settings) settings=$2; shift ;;
    --data) data=$2; shift ;;
    --out) out=$2; shift ;;
    --options) options=$2; shift ;;
    --stamps) stamps=$2; shift ;;
    esac
    shift
done
# A value of a flat JSON object: strings without quotes, arrays without brackets.
field() { printf '%s' "$1" | sed -n 's/.*"'"$2"'":\("\([^"]*\)"\|\[\([^]]*\)\]\|\([^,}]*\)\).*/\2\3\4/p'; }
arm=$(printf '%s' "$data$out" | sed -n 's/.*arm=\([^/]*\).*/\1/p')
[ -n "$arm" ] || arm=$(printf '%s' "$data$out" | sed -n 's/.*\/\(probe\|pilot\|knee\).*/\1/p')

# What a sound server and driver say.
meta=m1 segments=s1 replies=r1
wrong=0 lost=0 lag_p99=5000 plan=plan-hash makespan=1
before_ready() { :; }
before_stopped() { :; }
before_driven() { :; }
if [ -f "$here/behaviour.sh" ]; then . "$here/behaviour.sh"; fi

if [ "$verb" = serve ]; then
    before_ready
    echo "{\"ready\":{\"addr\":\"127.0.0.1:9\",\"pid\":$$}}"
    while read -r _; do :; done
    before_stopped
    if [ -n "$stamps" ]; then echo stamps >"$stamps"; fi
    cpus=$(field "$settings" cpus)
    ring=null iowq=null back_end=epoll threads=
    case $stack in
    monoio | compio)
        back_end=io_uring ring=$(field "$settings" ring_entries) iowq=$(field "$settings" iowq_bounded) ;;
    esac
    if [ "$stack" = tokio-shared ]; then
        threads="{\"name\":\"worker\",\"cpus_allowed\":\"$cpus\"}"
    else
        for cpu in $(echo "$cpus" | tr , ' '); do
            threads="$threads${threads:+,}{\"name\":\"shard\",\"cpus_allowed\":\"$cpu\"}"
        done
    fi
    echo "{\"stopped\":{\"attestation\":{\"stack\":\"$stack\",\"back_end\":\"$back_end\",\"rings\":1,\"epolls\":1,\
\"threads\":[$threads],\"blocking_threads\":$(field "$settings" blocking_threads),\"iowq_bounded\":$iowq,\
\"ring_entries\":$ring,\"durability\":\"$(field "$settings" durability)\",\
\"placement\":\"$(field "$settings" placement)\",\"files\":\"$(field "$settings" files)\",\"kernel\":\"fake\",\"role_runtimes\":[],\
$(for name in roles raft_sync last_applied meta_store; do printf '"%s":"%s",' $name "$(field "$settings" $name)"; done)\
$(for name in eager_handoff neighbours durable_sessions session_batch; do
    printf '"%s":%s,' $name "$(field "$settings" $name)"
done)\"nodes\":$(field "$settings" nodes)},\
\"digest\":{\"meta\":\"$meta\",\"segments\":\"$segments\",\"records\":7,\"sessions\":2},\"counters\":{}}}"
    exit 0
fi

before_driven
echo samples >"$out/requests.parquet"
echo samples >"$out/histograms.parquet"
echo samples >"$out/connections.parquet"
echo "{\"plan_hash\":\"$plan\",\"requests\":100,\"measured\":90,\"errors\":$((wrong + lost)),\"lost\":$lost,\
\"wrong\":$wrong,\"unsent\":0,\"offered_per_s\":100.0,\"achieved_per_s\":100.0,\"tried_per_s\":100.0,\
\"driver_lag_ns\":{\"p50\":900,\"p99\":$lag_p99,\"p99_9\":9000,\"max\":9000},\
\"send_lag_ns\":{\"p50\":900,\"p99\":5000,\"p99_9\":9000,\"max\":9000},\"read_lag_ns\":{\"p50\":900,\"p99\":5000,\"p99_9\":9000,\"max\":9000},\"run_delay_ns\":null,\
\"lag_refuses_above\":99.99,\"setup_failed\":0,\"violations\":0,\"held\":{\"requests\":0,\"max_ns\":0},\
\"makespan_ns\":$makespan,\"deliveries\":0,\"cpu_ns\":1,\"connections\":2,\"failed_connections\":0,\"first_fault\":null,\
\"resized\":0,\"t0_ns\":1,\
\"replies_digest\":\"$replies\",\"cpu\":$(field "$options" cpu),\"spin\":$(field "$options" spin)}"
