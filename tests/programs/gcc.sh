# Compiling, linking and running C: one file, several, libraries, threads, errors.
# volume: /tmp
cd /tmp && mkdir c && cd c || exit 1
cat >hello.c <<'C'
#include <stdio.h>
int main(int argc, char **argv) { printf("hello from %s, %d arguments\n", argv[0], argc); return 3; }
C
gcc -Wall -O2 -o hello hello.c && ./hello a b; echo "status $?"
gcc -static -o hello-static hello.c && ./hello-static; echo "status $?"
cat >sum.c <<'C'
#include <math.h>
double sum(int n) { double s = 0; for (int i = 1; i <= n; i++) s += sqrt(i); return s; }
C
cat >main.c <<'C'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
double sum(int n);
static void *run(void *arg) { double *r = malloc(sizeof *r); *r = sum(*(int *)arg); return r; }
int main(void) {
    pthread_t t[4]; int n[4] = {10, 100, 1000, 10000};
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, run, &n[i]);
    for (int i = 0; i < 4; i++) { void *r; pthread_join(t[i], &r); printf("%.3f\n", *(double *)r); free(r); }
}
C
gcc -O2 -fPIC -shared -o libsum.so sum.c -lm && gcc -pthread -o main main.c -L. -lsum -Wl,-rpath,'$ORIGIN' && ./main
gcc -c sum.c && ar rcs libsum2.a sum.o && gcc -pthread -o main2 main.c libsum2.a -lm && ./main2 | tail -1
gcc -fsanitize=undefined -o none.o nosuch.c 2>/dev/null; echo "missing source: $?"
echo 'int main(void) { return x; }' | gcc -x c - 2>&1 | grep -c "undeclared"
echo 'int f(void); int main(void) { return f(); }' | gcc -x c - 2>&1 | grep -c "undefined reference"
gcc -S -O1 -o - sum.c | grep -c sqrt | sed 's/[1-9][0-9]*/some/'
gcc -E - <<<'#include <stdio.h>' | grep -c printf | sed 's/[1-9][0-9]*/some/'
nm -D libsum.so | grep ' T '
