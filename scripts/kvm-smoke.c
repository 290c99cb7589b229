// The least that shows a working KVM: a virtual machine that adds two numbers in real mode, writes the sum to a port
// and halts. Tells a broken harness from a broken platform. Exit status 0 when the guest did all that.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static void check(int bad, const char *what) {
    if (bad) {
        perror(what);
        exit(1);
    }
}

int main(void) {
    // mov dx,0x3f8; add al,bl; add al,'0'; out dx,al; hlt
    static const uint8_t code[] = {0xba, 0xf8, 0x03, 0x00, 0xd8, 0x04, '0', 0xee, 0xf4};
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    check(kvm < 0, "/dev/kvm");
    int vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
    check(vm < 0, "KVM_CREATE_VM");
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(page == MAP_FAILED, "mmap");
    memcpy(page, code, sizeof code);
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = 0x1000, .memory_size = 4096, .userspace_addr = (uintptr_t)page};
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0, "KVM_SET_USER_MEMORY_REGION");
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
    check(cpu < 0, "KVM_CREATE_VCPU");
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0UL);
    struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    check(run == MAP_FAILED, "mmap of kvm_run");
    struct kvm_sregs sregs;
    check(ioctl(cpu, KVM_GET_SREGS, &sregs) < 0, "KVM_GET_SREGS");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    check(ioctl(cpu, KVM_SET_SREGS, &sregs) < 0, "KVM_SET_SREGS");
    struct kvm_regs regs = {.rip = 0x1000, .rax = 2, .rbx = 3, .rflags = 2};
    check(ioctl(cpu, KVM_SET_REGS, &regs) < 0, "KVM_SET_REGS");
    int sum = -1;
    for (;;) {
        check(ioctl(cpu, KVM_RUN, 0UL) < 0, "KVM_RUN");
        if (run->exit_reason == KVM_EXIT_IO && run->io.port == 0x3f8) {
            sum = *((uint8_t *)run + run->io.data_offset) - '0';
        } else if (run->exit_reason == KVM_EXIT_HLT) {
            printf("kvm smoke: 2 + 3 = %d\n", sum);
            return sum == 5 ? 0 : 1;
        } else {
            fprintf(stderr, "kvm smoke: unexpected exit %u\n", run->exit_reason);
            return 1;
        }
    }
}
