# bash: traps, waits, substitutions, descriptors, co-processes, limits.
cd /tmp || exit 1
trap 'echo "exit trap, status $?"' EXIT
( trap 'echo sub exit' EXIT; trap 'echo usr1' USR1; kill -USR1 $BASHPID; echo after )
( trap 'echo term; exit 3' TERM; sleep 30 & kill -TERM $BASHPID; wait ); echo "status $?"
( trap '' INT; bash -c 'kill -INT $$; echo immune' ); bash -c 'kill -INT $$; echo never'; echo "status $?"
( set -e; trap 'echo "err at $LINENO"' ERR; false; echo never ); echo "status $?"
( trap 'n=$((n+1))' DEBUG; n=0; :; :; trap - DEBUG; [ "$n" -ge 2 ] && echo debugged )
trap 'chld=yes' CHLD; sleep 0.05 & wait $!; trap - CHLD; echo "chld $chld"
for s in 1 2 3; do (sleep 0.0$s; exit $s) & done; for i in 1 2 3; do wait -n; st="$st $?"; done; echo "waits$st" | tr ' ' '\n' | sort | tr '\n' ' '; echo
wait 99999; echo "wait for nobody $?"
diff <(seq 1 5) <(seq 2 6); echo "diff $?"
tee >(tr a-z A-Z >upper) <<<lower >/dev/null; while ! [ -s upper ]; do sleep 0.01; done; cat upper
coproc UP { while read -r l; do echo "<$l>"; done; }
echo hello >&"${UP[1]}"; read -r answer <&"${UP[0]}"; echo "$answer"; eval "exec ${UP[1]}>&-"; wait "$UP_PID"; echo "coproc $?"
exec 5<>fifo.txt; echo text >&5; exec 5<fifo.txt; cat <&5; exec 5<&-
mkfifo pipe; cat pipe & echo through >pipe; wait
read -r -t 0.05 x < <(sleep 1); echo "timeout $(( $? > 128 ))"
read -r -n 3 x <<<abcdef; echo "$x"; read -r -d : a <<<one:two; echo "$a"
set -o pipefail; true | false | true; echo "pipefail $?"; set +o pipefail
false | true | (exit 4); echo "${PIPESTATUS[*]}"
( ulimit -n 20; exec 30</dev/null ) 2>&1 | grep -c 'Bad file descriptor'
( ulimit -f 1; head -c 100000 /dev/zero >big; echo "limit $?" ); ls -l big | awk '{print $5}'
( ulimit -t 1; while :; do :; done ); echo "cpu limit $?"
( ulimit -c 0; kill -SEGV $BASHPID ) 2>/dev/null; echo "segv $?"
kill -l 9 15 130; printf '%(%Y)T\n' 0; printf '%q %s %05.1f %x\n' "a b" c 3.14159 255
declare -A map=([x]=1 [y]=2); echo "${map[x]}${map[y]} ${#map[@]}"; arr=(c a b); printf '%s\n' "${arr[@]}" | sort | paste -sd,
s=filename.tar.gz; echo "${s%%.*} ${s##*.} ${s/tar/zip} ${s:4:4} ${s^^}"
shopt -s extglob globstar nullglob
mkdir -p g/{a,b}/c; touch g/{a,b}/c/{1,2}.txt; echo g/**/*.txt; echo g/!(a); echo none*
[[ abc =~ ^(a)(.)c$ ]] && echo "${BASH_REMATCH[2]}"; (( 7 % 4 == 3 )) && echo math; echo $(( 2**62 )) $(( 16#ff ))
cd g && pwd && cd - >/dev/null; umask 027; touch masked; stat -c %a masked; umask 022
exec 7>locked; flock 7; ( flock -n 7 || echo "held by the same"; exec 8>locked; flock -n 8 || echo "held by another" )
time -p true 2>/dev/null; times | wc -l; echo $SECONDS | grep -c '^[0-9]'
timeout 0.1 sleep 30; echo "timeout $?"; timeout -s KILL 0.1 sleep 30; echo "timeout $?"
nohup echo nohup 2>/dev/null; setsid -w echo session; nice -n 5 nice
xargs -P 4 -n 1 sh -c 'sleep 0.01; exit 0' _ < <(seq 1 8); echo "xargs $?"
seq 1 3 | xargs -n 1 sh -c 'exit $1' _; echo "xargs $?"
exec 9>&1; { echo to nine >&9; } >/dev/null; exec 9>&-
bash -c 'exec -a renamed bash -c "echo \$0"'; command -v true; type -t cd
