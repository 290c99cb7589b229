# A shell that is saved in the middle of a pipeline, with jobs, here-documents, traps and files on their way.
set -u
cd /tmp
trap 'echo trapped' USR1
value=before
mkfifo gate
seq 1 5 > numbers
exec 7< numbers
read -r first <&7
# Blocked until the gate opens: readers and writers of pipes, a sleeping child.
(cat gate; echo behind the gate) | tr a-z A-Z | sed 's/^/: /' > shouted &
(sleep 0.2; exit 3) &
sleeper=$!
lines=$(printf 'x%.0s' $(seq 1 3000) | wc -c)
until [ -e /proc/self ] && [ "$(cat /proc/*/comm 2>/dev/null | grep -c '^tr$')" -ge 1 ]; do sleep 0.01; done
echo "--- ready"
{ echo ready > /proc/nanovisor/checkpoint; } 2>/dev/null || true
read -r second <&7
echo "$value $first $second $lines"
wait "$sleeper"
echo "sleeper $?"
echo "hello there" > gate
wait
cat shouted
kill -USR1 $$
cat <<END
here $((6 * 7)) $(echo nested | tr e E)
END
find . -name numbers -size +0 | sort
exec 7<&-
rm -r numbers gate shouted && ls -A | grep -c numbers
exit 0
