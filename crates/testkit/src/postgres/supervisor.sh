# Keeps one throwaway PostgreSQL cluster, and removes it when the process that asked for it is gone.
#
# Arguments: the directory to make the cluster's directory in, the directory of PostgreSQL's programs, and then the
#            server's own arguments.
# Input:     the superuser's password; then `start PORT`, and while the server runs `crash`, in turn.
#            The input's end means: stop and remove. It comes also when the other side was killed.
# Output:    `ready DIRECTORY`, `up PID`, `down`; or `failed`, the end of the log, and the output's end.

# Only the input decides when this ends; a closed output or a terminal's Ctrl-C must not skip the removal.
trap '' HUP INT TERM PIPE
umask 077
parent=$1 programs=$2
shift 2
# Input moves to 3, so that no program that runs below can take it for its own.
exec 3<&0 </dev/null

directory=$(mktemp -d "$parent/worker-postgres-XXXXXX") || exit 1
log=$directory/server.log

report_failure() {
    echo failed
    tail -c 4000 "$log"
}

remove() {
    # A server that was killed outright leaves a segment of shared memory, and says in its seventh line which.
    if [ -f "$directory/data/postmaster.pid" ]; then
        ipcrm -m "$(awk 'NR == 7 { print $2 }' "$directory/data/postmaster.pid")"
    fi
    # Processes of a server that was killed outright may still be writing for a moment.
    rm -rf "$directory" || { sleep 1 && rm -rf "$directory"; }
}

if ! read -r password <&3; then
    remove
    exit
fi
printf '%s\n' "$password" >"$directory/password"
if ! "$programs/initdb" --pgdata="$directory/data" --username=postgres --pwfile="$directory/password" \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C --no-sync >"$log" 2>&1 3<&-; then
    report_failure
    remove
    exit 1
fi
rm "$directory/password"
echo "ready $directory"

while read -r order port <&3; do
    "$programs/postgres" -D "$directory/data" -k "$directory" -p "$port" "$@" >>"$log" 2>&1 3<&- &
    server=$!
    echo "up $server"

    # The listener stops the server at the next order (0) or at the input's end (1), and says by its exit which it was.
    # USR1 ends it only while it listens: from then on it must finish, or an ordered crash would pass for a failure.
    (
        read -r order
        heard=$?
        trap '' USR1
        # Once is not enough: a server that has only just been started does not hear it yet.
        while kill -s QUIT "$server"; do
            sleep 0.1
        done
        exit "$heard"
    ) <&3 3<&- >/dev/null &
    listener=$!

    wait "$server"
    kill -s USR1 "$listener" 2>/dev/null
    wait "$listener"
    case $? in
    0) echo down ;;
    1) break ;;
    *)
        report_failure
        break
        ;;
    esac
done
remove
