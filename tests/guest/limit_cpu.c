// RLIMIT_CPU: SIGXCPU at the soft limit and every second after it, SIGKILL at the hard one; inherited by children.
#include "t.h"
#include <sys/resource.h>

static volatile int told;
static void on_xcpu(int sig) { (void)sig; told++; }

static void burn(void) { for (;;) if (told) break; }

int main(void) {
    IN_CHILD("default", {
        setrlimit(RLIMIT_CPU, &(struct rlimit){1, 10});
        burn();
    });
    IN_CHILD("handled", {
        signal(SIGXCPU, on_xcpu);
        setrlimit(RLIMIT_CPU, &(struct rlimit){1, 10});
        burn();
        CHECK("told", told == 1);
    });
    IN_CHILD("inherited, hard limit", {
        signal(SIGXCPU, SIG_IGN);
        setrlimit(RLIMIT_CPU, &(struct rlimit){1, 1});
        IN_CHILD("child", burn());
    });
    END;
}
