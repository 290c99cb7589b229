// What programs learn of the network's devices: the loopback is there on every side.
#include "t.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int main(void) {
    struct ifaddrs *all = NULL;
    int packet = 0;
    SHOW("getifaddrs", getifaddrs(&all));
    for (struct ifaddrs *a = all; a; a = a->ifa_next)
        if (strcmp(a->ifa_name, "lo") == 0) packet += a->ifa_addr && a->ifa_addr->sa_family == AF_PACKET && (a->ifa_flags & IFF_LOOPBACK);
    CHECK("lo is listed", packet == 1);
    CHECK("if_nametoindex", if_nametoindex("lo") == 1);
    char name[IF_NAMESIZE];
    CHECK("if_indextoname", if_indextoname(1, name) && strcmp(name, "lo") == 0);
    CHECK("no such device", if_nametoindex("nosuch0") == 0 && errno == ENODEV);
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    SHOW("bad protocol", socket(AF_NETLINK, SOCK_RAW, 99));
    SHOW("bad type", socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE));
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    SHOW("bind", bind(s, (void *)&a, sizeof a));
    socklen_t len = sizeof a;
    CHECK("bound", getsockname(s, (void *)&a, &len) == 0 && len == sizeof a && a.nl_pid != 0);
    CHECK("type", ({ int t; socklen_t l = 4; getsockopt(s, SOL_SOCKET, SO_TYPE, &t, &l); t == SOCK_RAW; }));
    struct { struct nlmsghdr h; struct ifinfomsg i; } ask = {{sizeof ask, RTM_GETLINK, NLM_F_REQUEST, 7, 0}, {.ifi_index = 1}};
    char buf[8192];
    SHOW("listen", listen(s, 1));
    SHOW("nothing yet", recv(s, buf, sizeof buf, MSG_DONTWAIT));
    CHECK("ask", send(s, &ask, sizeof ask, 0) == sizeof ask);
    struct pollfd p = {s, POLLIN, 0};
    CHECK("answered", poll(&p, 1, 1000) == 1);
    int n = recv(s, buf, sizeof buf, MSG_PEEK | MSG_TRUNC), m = recv(s, buf, sizeof buf, 0);
    struct nlmsghdr *h = (void *)buf;
    struct ifinfomsg *i = NLMSG_DATA(h);
    CHECK("the link", n == m && h->nlmsg_type == RTM_NEWLINK && h->nlmsg_seq == 7 && i->ifi_type == 772 && i->ifi_index == 1);
    ask.i.ifi_index = 12345;
    send(s, &ask, sizeof ask, 0), recv(s, buf, sizeof buf, 0);
    CHECK("no such link", h->nlmsg_type == NLMSG_ERROR && ((struct nlmsgerr *)NLMSG_DATA(h))->error == -ENODEV);
    ask.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, ask.i.ifi_index = 0;
    send(s, &ask, sizeof ask, 0);
    int done = 0, found = 0;
    while (!done && (n = recv(s, buf, sizeof buf, 0)) > 0)
        for (h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            done |= h->nlmsg_type == NLMSG_DONE;
            found += h->nlmsg_type == RTM_NEWLINK && ((struct ifinfomsg *)NLMSG_DATA(h))->ifi_index == 1;
        }
    CHECK("a dump ends", done && found == 1);
    SHOW("a short request is dropped", send(s, &ask, 8, 0));
    SHOW("no answer", recv(s, buf, sizeof buf, MSG_DONTWAIT));
    return t_failed;
}
