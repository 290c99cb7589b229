//! `/proc/PID/net`: the tables of a network that has only what the sandbox brings.

use std::sync::Arc;

use crate::fs::pseudo::{PseudoFs, fixed_dir, fixed_file};
use crate::vfs::Inode;

const DEV: &str = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";
const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n";
const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";
const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n";
const NETLINK: &str = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
const SOCKSTAT: &str = "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n";
const SOCKSTAT6: &str = "TCP6: inuse 0\nUDP6: inuse 0\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n";
const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n";
const ARP: &str = "IP address       HW type     Flags       HW address            Mask     Device\n";
const PROTOCOLS: &str = "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n";
const IF_INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n";

/// The directory.
pub(super) fn directory(fs: &Arc<PseudoFs>) -> Arc<dyn Inode> {
    let files = [
        ("dev", DEV),
        ("tcp", TCP),
        ("tcp6", TCP6),
        ("udp", UDP),
        ("udp6", UDP6),
        ("udplite", UDP),
        ("udplite6", UDP6),
        ("raw", UDP),
        ("raw6", UDP6),
        ("unix", UNIX),
        ("route", ROUTE),
        ("ipv6_route", ""),
        ("if_inet6", IF_INET6),
        ("netlink", NETLINK),
        ("sockstat", SOCKSTAT),
        ("sockstat6", SOCKSTAT6),
        ("packet", PACKET),
        ("arp", ARP),
        ("protocols", PROTOCOLS),
        ("igmp", "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"),
        ("dev_mcast", ""),
        ("ptype", "Type Device      Function\n"),
        ("wireless", ""),
    ];
    fixed_dir(fs, files.map(|(name, text)| (name, fixed_file(fs, text))).to_vec())
}
