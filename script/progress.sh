# Sourced by the other scripts: says that a long command still runs.

# with_progress WHAT COMMAND...: runs the command; every 20 seconds, a line on standard error. It ends in
# the last "[ 45%]" of the file PROGRESS_LOG, if that is set and there is one.
with_progress() {
    local what=$1 began=$SECONDS owner=$BASHPID watcher code=0
    shift
    (
        trap 'kill "$sleeper" 2>/dev/null; exit 0' TERM
        while kill -0 "$owner" 2>/dev/null; do
            sleep 20 &
            sleeper=$!
            wait "$sleeper"
            printf '%s: still running after %d s%s\n' "$what" $((SECONDS - began)) "$(share_done)" >&2
        done
    ) >/dev/null 9>&- &
    watcher=$!
    "$@" || code=$?
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    return "$code"
}

share_done() {
    [[ -n ${PROGRESS_LOG:-} && -f $PROGRESS_LOG ]] || return 0
    grep -o '\[ *[0-9]*%\]$' "$PROGRESS_LOG" | tail -n 1 | sed 's/^/ /'
}
