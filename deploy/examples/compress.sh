#!/usr/bin/env bash
# Submits a job, waits until it has ended, downloads what it published and checks every file, with nothing but curl
# and jq (and sha256sum).
#
#   compress.sh job.json [folder]
#
# GRASPD_SERVER (http://127.0.0.1:8080) is the service, GRASPD_KEY its key, if it wants one. GRASPD_RUN names this run:
# the script may be started again with the same name, say by a pipeline that retries, and makes no second job.
set -euo pipefail

server=${GRASPD_SERVER:-http://127.0.0.1:8080}
spec=${1:?usage: compress.sh job.json [folder]}
folder=${2:-compressed}
run=${GRASPD_RUN:-$(sha256sum "$spec" | cut -c1-16)-$(date +%s)}

# call METHOD PATH [curl's arguments]: the body on success, the problem on standard error otherwise.
call() {
    local method=$1 path=$2 reply status
    shift 2
    reply=$(mktemp)
    status=$(curl -sS --retry 5 --retry-connrefused -o "$reply" -w '%{http_code}' -X "$method" \
        ${GRASPD_KEY:+-H "authorization: Bearer $GRASPD_KEY"} "$@" "$server$path")
    if [[ $status != 2* ]]; then
        jq -r '"\(.status) \(.code): \(.detail // .title) \(.field // "")"' "$reply" >&2 || cat "$reply" >&2
        rm -f "$reply"
        return 1
    fi
    cat "$reply"
    rm -f "$reply"
}

id=$(call POST /v1/jobs -H 'content-type: application/json' -H "idempotency-key: $run" \
    --data-binary "@$spec" | jq -r .id)
echo "job $id" >&2

while :; do
    # The answer comes when something changes, or after half a minute.
    job=$(call GET "/v1/jobs/$id" -H 'prefer: wait=30')
    jq -r '"\(.status) \(.stage // "") \(if .progress then "\(.progress.done)/\(.progress.total)" else "" end)"' \
        <<<"$job" >&2
    case $(jq -r .status <<<"$job") in
        succeeded) break ;;
        failed) jq -r '"\(.error.code): \(.error.message)"' <<<"$job" >&2 && exit 1 ;;
        cancelled) exit 2 ;;
    esac
done

mkdir -p "$folder"
call GET "/v1/jobs/$id/artifacts" | jq -r '.data[] | [.name, .sha256, .url] | @tsv' |
    while IFS=$'\t' read -r name sha256 url; do
        mkdir -p "$folder/$(dirname "$name")"
        if echo "$sha256  $folder/$name" | sha256sum --check --status 2>/dev/null; then continue; fi
        # -C - goes on where an earlier download broke off.
        curl -sS --fail --retry 5 -C - -o "$folder/$name" \
            ${GRASPD_KEY:+-H "authorization: Bearer $GRASPD_KEY"} "$server$url"
        echo "$sha256  $folder/$name" | sha256sum --check --quiet
    done
(cd "$folder" && sha256sum --check --quiet SHA256SUMS)
call GET "/v1/jobs/$id/report" | jq '{parameters, bytes, evaluation}'
