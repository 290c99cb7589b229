// epoll in all its modes, eventfd, pipes with content, sockets with data and descriptors in flight.
#include "ckpt.h"
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static void send_fd(int socket, int fd)
{
    char space[CMSG_SPACE(4)] = {0};
    struct iovec iov = {"fd", 2};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(4);
    memcpy(CMSG_DATA(c), &fd, 4);
    if (sendmsg(socket, &m, 0) != 2) DIE("sendmsg");
}

static int receive_fd(int socket)
{
    char space[CMSG_SPACE(4)] = {0}, buf[8];
    struct iovec iov = {buf, sizeof buf};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (recvmsg(socket, &m, 0) != 2) DIE("recvmsg");
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    int fd = -1;
    if (c) memcpy(&fd, CMSG_DATA(c), 4);
    return fd;
}

int main(void)
{
    int level[2], edge[2], once[2], content[2], packets[2];
    if (pipe(level) || pipe(edge) || pipe(once) || pipe(content) || pipe2(packets, O_DIRECT)) DIE("pipe");
    int ep = epoll_create1(0);
    struct epoll_event ev = {EPOLLIN, {.u32 = 1}};
    epoll_ctl(ep, EPOLL_CTL_ADD, level[0], &ev);
    ev = (struct epoll_event){EPOLLIN | EPOLLET, {.u32 = 2}};
    epoll_ctl(ep, EPOLL_CTL_ADD, edge[0], &ev);
    ev = (struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u32 = 3}};
    epoll_ctl(ep, EPOLL_CTL_ADD, once[0], &ev);
    struct epoll_event got[8];
    if (write(once[1], "o", 1) != 1 || epoll_wait(ep, got, 8, 0) != 1) DIE("once");
    if (write(level[1], "l", 1) != 1 || write(edge[1], "e", 1) != 1) DIE("write");
    int semaphore = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    if (write(content[1], "some content", 12) != 12) DIE("content");
    if (write(packets[1], "one", 3) != 3 || write(packets[1], "two", 3) != 3) DIE("packets");
    int stream[2], datagrams[2], seq[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, stream) || socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET, 0, seq))
        DIE("socketpair");
    char buf[32] = {0};
    if (send(stream[0], "stream data", 11, 0) != 11 || recv(stream[1], buf, 7, 0) != 7) DIE("stream");
    if (send(datagrams[0], "d1", 2, 0) != 2 || send(datagrams[0], "d22", 3, 0) != 3) DIE("datagrams");
    if (send(seq[0], "packet", 6, 0) != 6) DIE("seq");
    close(seq[0]);
    int flying[2];
    if (pipe(flying)) DIE("pipe");
    int carrier[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, carrier)) DIE("socketpair");
    send_fd(carrier[0], flying[0]);
    close(flying[0]);
    if (write(flying[1], "flown", 5) != 5) DIE("flying");
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {AF_UNIX, ""};
    memcpy(name.sun_path, "\0ckpt", 5);
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 5;
    if (bind(listener, (void *)&name, len) || listen(listener, 5)) DIE("bind");
    if (connect(client, (void *)&name, len) || send(client, "early", 5, 0) != 5) DIE("connect");
    ready();
    int n = epoll_wait(ep, got, 8, 0), sum = 0;
    for (int i = 0; i < n; i++) sum += got[i].data.u32;
    printf("epoll %d events, sum %d\n", n, sum);
    n = epoll_wait(ep, got, 8, 0);
    printf("again %d, data %d\n", n, n > 0 ? (int)got[0].data.u32 : 0);
    if (write(edge[1], "e", 1) != 1 || write(once[1], "o", 1) != 1) DIE("write");
    n = epoll_wait(ep, got, 8, 0);
    printf("an edge more: %d\n", n);
    ev = (struct epoll_event){EPOLLIN, {.u32 = 4}};
    SHOW("add again", epoll_ctl(ep, EPOLL_CTL_ADD, once[0], &ev));
    SHOW("rearm", epoll_ctl(ep, EPOLL_CTL_MOD, once[0], &ev));
    printf("rearmed: %d\n", epoll_wait(ep, got, 8, 0));
    uint64_t v;
    SHOW("semaphore", read(semaphore, &v, 8));
    SHOW("semaphore", read(semaphore, &v, 8));
    SHOW("semaphore", read(semaphore, &v, 8));
    memset(buf, 0, sizeof buf);
    printf("content %zd %s\n", read(content[0], buf, 32), buf);
    memset(buf, 0, sizeof buf);
    printf("packet %zd %s\n", read(packets[0], buf, 32), buf);
    printf("stream %zd %.4s\n", recv(stream[1], buf, 32, 0), buf);
    printf("datagram %zd %.2s\n", recv(datagrams[1], buf, 32, 0), buf);
    printf("datagram %zd %.3s\n", recv(datagrams[1], buf, 32, 0), buf);
    printf("seqpacket %zd %.6s\n", recv(seq[1], buf, 32, 0), buf);
    printf("its end %zd\n", recv(seq[1], buf, 32, 0));
    int flown = receive_fd(carrier[1]);
    memset(buf, 0, sizeof buf);
    printf("flown %zd %s\n", read(flown, buf, 32), buf);
    SHOW("send back", send(stream[1], "back", 4, 0));
    SHOW("receive", recv(stream[0], buf, 32, 0));
    int accepted = accept(listener, 0, 0);
    memset(buf, 0, sizeof buf);
    printf("accepted %zd %s\n", recv(accepted, buf, 32, 0), buf);
    int late = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW("connect again", connect(late, (void *)&name, len));
    struct ucred who;
    socklen_t size = sizeof who;
    SHOW("peercred", getsockopt(client, SOL_SOCKET, SO_PEERCRED, &who, &size));
    printf("same process %d\n", who.pid == getpid());
    signal(SIGPIPE, SIG_IGN);
    close(content[0]);
    SHOW("no reader", write(content[1], "x", 1));
    return 0;
}
