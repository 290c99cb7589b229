# A repository's life: commits, branches, merges, conflicts, clones, packs.
# volume: /tmp
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' GIT_CONFIG_NOSYSTEM=1 HOME=/tmp
git config --global init.defaultBranch main
git config --global advice.detachedHead false
cd /tmp && git init -q repo && cd repo || exit 1
echo one >a; mkdir d; echo two >d/b; ln -s a link; echo '#!/bin/sh' >run; chmod +x run
git add -A && git commit -qm first && git log --oneline
git ls-files -s
git checkout -q -b side && echo side >>a && git commit -qam side
git checkout -q main && echo main >>d/b && git commit -qam main
git merge -q -m merged side && git log --graph --format='%h %s'
git checkout -q -b clash HEAD~1 && echo clash >>a && git commit -qam clash
git merge side >/dev/null; echo "merge: $?"
cat a; git status --short; git merge --abort; git status --short
git diff --stat main clash
git stash list; echo dirty >>a; git stash -q; git status --short; git stash pop -q; git diff; git checkout -q -- a
git tag -a v1 -m tag main; git describe main
for i in $(seq 1 40); do echo "$i" >"n$i"; done; git add .; git commit -qm many
git rev-parse HEAD 'HEAD^{tree}'
git gc -q && git fsck --full 2>/dev/null; git count-objects -v | grep -E '^(count|packs|in-pack)'
git clone -q . ../copy && git -C ../copy log --oneline | head -2
git -C ../copy show --stat --format=%s HEAD | tail -1
cd ../copy && echo more >more && git add more && git commit -qm more && git push -q origin HEAD:incoming && cd ../repo && git log --oneline -1 incoming
git grep -n main main -- d; git blame -s a | cut -c10-
git archive HEAD | tar -tf - | wc -l
git worktree add -q ../tree side && ls ../tree
git bisect start -q HEAD HEAD~1 2>/dev/null | head -1; git bisect reset -q 2>/dev/null
git rebase -q side 2>/dev/null; echo "rebase: $?"
