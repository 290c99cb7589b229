# A shell's day over the image: walking it, pipelines, here-documents, background jobs, exit statuses.
cd /usr/lib/python3.11 || exit 1
echo "modules: $(find . -maxdepth 1 -name '*.py' | wc -l)"
echo "longest five:"
find . -maxdepth 1 -name '*.py' -exec wc -c {} + | grep -v total | sort -k1,1nr -k2 | head -5
echo "definitions: $(cat ./*.py | grep -c '^def ')"
echo "digest: $(find /usr/share/zoneinfo/Europe -type f 2>/dev/null | sort | head -40 | xargs -r cat | sha256sum | cut -c1-16)"

work=$(mktemp -d /tmp/demo.XXXXXX)
cd "$work" || exit 1
seq 1 20000 | awk '{ print ($1 * 7919) % 10007, $1 }' | sort -n >numbers
head -3 numbers
tar -cf - numbers | gzip -n -9 | gzip -dc | tar -tf -
mkdir tree && (cd tree && for i in 1 2 3 4; do mkdir "d$i" && echo "file $i" >"d$i/f"; done)
mv tree/d2 tree/renamed && ln -s renamed/f tree/link && ln tree/d1/f tree/hard
find tree | LC_ALL=C sort
cat tree/link
stat -c '%n %h %s %A' tree/hard

cat <<TEXT | sed 's/sand/glass/' | tr a-z A-Z
a box of sand
TEXT
{ sleep 0.5; echo "second"; } & { sleep 0.05; echo "first"; } & wait
(exit 7) || echo "status $?"
sh -c 'kill -TERM $$'; echo "killed: $?"
yes | head -1000 | busybox wc -l
busybox sh -c 'busybox seq 1 5 | busybox tac | busybox paste -sd,'
rm -rf "$work"
echo "done"
