# Archives, copies, links, sparse files, modes and times: the tools that look closely at a file system.
cd /tmp && mkdir f && cd f || exit 1
umask 022
mkdir -p src/{a,b}/deep && seq 1 5000 >src/a/numbers && ln src/a/numbers src/b/hard && ln -s ../a/numbers src/b/soft && ln -s nowhere src/dangling
truncate -s 5M src/sparse && printf data | dd of=src/sparse bs=1 seek=3000000 conv=notrunc 2>/dev/null
mkfifo src/fifo; chmod 4755 src/a; chmod 1777 src/b; chown 12:34 src/b/deep; touch -d @1234567890.5 src/a/numbers; mknod src/null c 1 3
printf 'x' >"src/with space"; printf 'y' >$'src/with\nnewline'; touch "src/$(printf 'n%.0s' $(seq 1 255))"
list() { (cd "$1" && find . -printf '%y %m %U:%G %n %s %l %p\0' | grep -zv '^d' | tr '\n' '?' | sort -z | tr '\0' '\n'); }
list src | sha256sum; list src | grep -v nnn
cp -a src copy && list copy | cmp - <(list src) && echo "cp -a is the same"
stat -c '%Y %y' copy/a/numbers | cut -d' ' -f1,3; [ copy/a/numbers -ef copy/b/hard ] && echo "still hard links"
tar -cf t.tar --sparse -C src . && mkdir out && tar -xpf t.tar -C out && list out | cmp - <(list src) && echo "tar is the same"
tar -czf t.tgz src 2>/dev/null && gzip -t t.tgz && tar -tzf t.tgz | wc -l; tar -df t.tar -C src; echo "compare $?"
du -k --apparent-size src/sparse | cut -f1; [ "$(stat -c %b src/sparse)" -lt 1000 ] && echo sparse; cmp src/sparse out/sparse && echo equal
mv src/a moved && ls moved; mv -n moved/numbers copy/a/numbers; ls moved; mv copy/b copy/c; readlink copy/c/soft; readlink -f copy/c/soft
rmdir copy 2>&1 | sed 's/.*: //'; rm copy/nosuch 2>&1 | sed 's/.*: //'; mkdir copy 2>&1 | sed 's/.*: //'; cat copy 2>&1 | sed 's/.*: //'
ln -s loop loop; cat loop 2>&1 | sed 's/.*: //'; cat "$(printf 'n%.0s' $(seq 1 256))" 2>&1 | sed 's/.*: //'; echo x >copy/dangling/y 2>/dev/null; echo $?
touch ro && chmod 444 ro && (exec setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'echo x >ro; cat ro; rm -f ro; ls /root') 2>&1 | sed 's/.*: //'
mkdir sticky && chmod 1777 sticky && touch sticky/mine && setpriv --reuid 1000 --regid 1000 --clear-groups rm -f sticky/mine 2>&1 | sed 's/.*: //'
mkdir sgid && chgrp 50 sgid && chmod 2775 sgid && mkdir sgid/sub && touch sgid/file && stat -c '%g %a %n' sgid/sub sgid/file
install -D -m 640 ro inst/a/b && stat -c %a inst/a/b; mktemp -u | grep -c '^/tmp/tmp\.'; realpath -m /a/../b/./c; basename /a/b.c .c
fallocate -l 1M fa && stat -c %s fa && fallocate -p -o 4096 -l 8192 fa; truncate -s 10 fa && wc -c <fa; truncate -s +5 fa && wc -c <fa
echo old >r1; echo new >r2; mv -f r2 r1; cat r1; exec 3<r1; rm r1; cat <&3; exec 3<&-; ls r1 2>&1 | sed 's/.*: //'
for i in $(seq 1 300); do echo "$i" >"many$i"; done; ls many* | wc -l; cat many* | sort -n | tail -1; rm many*; ls many* 2>/dev/null | wc -l
mkdir -p $(printf 'p/%.0s' $(seq 1 60)) && find p -type d | wc -l && rm -rf p; chmod -R go-rwx src && stat -c %a src/b; chattr -V +i ro >/dev/null 2>&1 || true
find / -xdev -path /proc -prune -o -path /tmp -prune -o -type f -perm -4000 -print 2>/dev/null | sort | head -3; df / >/dev/null && echo "df works"
sync; sync -d t.tar; echo "sync $?"; echo one >app; echo two >>app; exec 4>>app; echo three >&4; exec 4>&-; cat app; test -w app && echo writable
cd /usr/bin && echo changed >env.new && mv env.new ../share/renamed && cat ../share/renamed && rm bash && ls bash 2>&1 | sed 's/.*: //'; ln -s /bin/dash bash; readlink bash
