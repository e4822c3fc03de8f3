# Keeps a throwaway PostgreSQL cluster, and removes the cluster after the end of the parent process.
#
# Arguments: the parent of the cluster's directory, the directory of PostgreSQL's programs, and the server's arguments.
# Input:     the superuser's password; then in turn `start PORT` and, while the server runs, `crash`.
#            At the end of the input, the script stops the server and removes the cluster. The input also ends when the
#            parent process is killed.
# Output:    `ready DIRECTORY`, `up PID`, `down`; or `failed`, the end of the log, and the end of the output.

# A closed output or Ctrl-C in a terminal must not skip the removal, so only the end of the input ends this script.
trap '' HUP INT TERM PIPE
umask 077
parent=$1 programs=$2
shift 2
# The programs below must not read the script's input, so the input moves to descriptor 3.
exec 3<&0 </dev/null

if ! directory=$(mktemp -d "$parent/worker-postgres-XXXXXX" 2>&1); then
    printf 'failed\n%s\n' "$directory"
    exit 1
fi
log=$directory/server.log

report_failure() {
    echo failed
    tail -c 4000 "$log"
}

# The server writes its process ID and state into lines 1 and 8 of postmaster.pid. A crash leaves an older file behind.
is_ready() {
    awk -v pid="$1" 'NR == 1 { is_its_own = $1 == pid } NR == 8 { is_ready = $1 == "ready" }
        END { exit !(is_its_own && is_ready) }' "$directory/data/postmaster.pid"
}

remove() {
    # A killed server leaves a segment of shared memory behind. Line 7 of postmaster.pid has its ID.
    if [ -f "$directory/data/postmaster.pid" ]; then
        ipcrm -m "$(awk 'NR == 7 { print $2 }' "$directory/data/postmaster.pid")"
    fi
    # Processes of a killed server may still write for a moment.
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

    # The listener reports that the server accepts connections. Then it stops the server at the next order (exit code 0) or
    # at the end of the input (exit code 1).
    # USR1 ends the listener only while it waits. Later it must finish, or the script would report an ordered crash as a
    # failure.
    (
        until is_ready "$server"; do
            sleep 0.02
        done
        echo "up $server"
        read -r order
        read_code=$?
        trap '' USR1
        kill -s QUIT "$server"
        exit "$read_code"
    ) <&3 3<&- &
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
