# A parallel make with its job server, time stamps, failing rules and interrupts.
cd /tmp && mkdir m && cd m || exit 1
for i in $(seq 1 12); do echo "int f$i(int x) { return x * $i; }" >"f$i.c"; done
{
    for i in $(seq 1 12); do echo "int f$i(int);"; done
    echo '#include <stdio.h>'
    echo 'int main(void) { int s = 0;'
    for i in $(seq 1 12); do echo "s += f$i(s + 1);"; done
    echo 'printf("%d\n", s); return 0; }'
} >main.c
cat >Makefile <<'MAKE'
OBJ := $(patsubst %.c,%.o,$(wildcard *.c))
all: prog sub
prog: $(OBJ)
	@gcc -o $@ $^
%.o: %.c
	@gcc -c -o $@ $<
sub: ; @$(MAKE) --no-print-directory -C inner
bad: ; @echo before; exit 4; echo after
.PHONY: all sub bad
MAKE
mkdir inner && printf 'all: a b c d\na b c d: ; @sleep 0.0$$((RANDOM %% 5)); touch $@\n' >inner/Makefile
make -s -j4 && ./prog && ls inner
make -s -q prog; echo "up to date: $?"
# Times are compared to the nanosecond: whatever comes later is newer.
touch f3.c && make -n prog | grep -c 'gcc -c'
make -s -j4 prog && make -s -q prog; echo "up to date: $?"
make bad 2>/dev/null; echo "failed: $?"
make -k -s bad nosuch 2>/dev/null; echo "failed: $?"
make -p -n 2>/dev/null | grep '^MAKE_COMMAND'
