# awk, sed, sort, join, tr, cut, grep and their like over generated text.
cd /tmp && mkdir x && cd x || exit 1
export LC_ALL=C
awk 'BEGIN { srand(42); for (i = 0; i < 20000; i++) printf "%d user%d %d\n", i, (i * 7919) % 97, (i * 31337) % 1009 }' >log
awk '{ n[$2]++; s[$2] += $3 } END { for (u in n) print u, n[u], s[u] }' log | sort -k3,3nr -k1,1 | head -5
sort -k2,2 -k3,3n -s log | sha256sum; sort -r -S 1M --parallel=2 log | sha256sum; sort -R --random-source=/etc/passwd log | wc -l
cut -d' ' -f2 log | sort | uniq -c | sort -k1,1n -k2 | tail -3
sed -n '100,105p;200{s/user/U/;p}' log; sed -E 's/([0-9]+) (user[0-9]+)/\2:\1/' log | tail -1
sed -i.bak 's/^1 /one /' log && head -2 log && diff log log.bak
join -1 2 -2 1 <(sort -k2,2 log | head -5) <(printf 'user0 zero\nuser1 uno\n')
grep -c 'user9[0-9]' log; grep -n -m 2 -A 1 'user50 ' log; grep -rl user5 . | sort; grep -q nothing log; echo $?
tr -dc 'a-z' <log | fold -w 60 | head -1; rev <<<abc; tac log | head -1; nl -ba <<<x; fmt -w 20 <<<'some words that are to be wrapped'
split -l 5000 log part. && ls part.* && cat part.* | cmp - log && echo same; comm -12 <(seq 1 10) <(seq 5 15 | sort) | wc -l
awk 'BEGIN { "date -u -d @0 +%Y" | getline y; print y; print strftime("%H", 3600, 1); while (("seq 1 3" | getline l) > 0) t += l; print t; print "b\na" | "sort"; close("sort"); system("exit 3") ; printf "%s %d %c\n", "x", 3.9, 65 }'
base64 <log | head -c 20; echo; base64 <log | base64 -d | cmp - log && echo same; od -An -c <<<ab; xxd </dev/null 2>/dev/null | wc -c
paste -d, <(seq 1 3) <(seq 4 6); seq -w 8 11; factor 1234567; expr 7 \* 6; numfmt --to=iec 123456789; date -u -d @1700000000 +%F
find . -name 'part.*' -size +10k -newer log.bak -printf '%f %s\n' | sort; find . -type f -exec sha256sum {} + | sort | head -2
dd if=log bs=1000 skip=3 count=2 2>/dev/null | sha256sum; head -c 5 log; tail -c 5 log; tail -n +19999 log
printf 'a\0b\0' | xargs -0 -n1 echo; echo 'a b  c' | read -r x y; yes n | head -100000 | md5sum; wc log; tee a b <<<t | cat - a b
md5sum log >sums && md5sum -c sums; shuf -n 5 --random-source=log log | wc -l; tsort <<<'a b b c'; ptx </dev/null; pr -t -3 <(seq 6)
