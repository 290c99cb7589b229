// Calls a sandbox refuses: with the errno of a Linux that has not got the feature.
#include "t.h"
#include <linux/membarrier.h>
#include <sys/syscall.h>

int main(void) {
    SHOW("modify_ldt reads nothing", syscall(SYS_modify_ldt, 0, NULL, 0));
    SHOW("set_thread_area", syscall(SYS_set_thread_area, NULL));
    SHOW("membarrier, unregistered", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    SHOW("membarrier, register", syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    SHOW("membarrier", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    SHOW("membarrier, global", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
    SHOW("membarrier, bad flags", syscall(SYS_membarrier, 0, 4, 0));
    SHOW("membarrier, bad command", syscall(SYS_membarrier, 1 << 30, 0, 0));
    int mode = -1;
    unsigned long mask = 0;
    SHOW("get_mempolicy", syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0));
    CHECK("default", mode == 0);
    SHOW("allowed", syscall(SYS_get_mempolicy, NULL, &mask, 64, NULL, 4));
    SHOW("set_mempolicy", syscall(SYS_set_mempolicy, 0, NULL, 0));
    SHOW("set_mempolicy, bad mode", syscall(SYS_set_mempolicy, 77, NULL, 0));
    SHOW("no such call", syscall(1000));
    SHOW("nor that", syscall(-1));
    END;
}
