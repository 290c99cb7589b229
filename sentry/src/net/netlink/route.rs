//! `rtnetlink(7)`: links, addresses and routes of a host that has the loopback device alone.

use abi::Errno;

use crate::net::netlink::wire::{DONE, F_ACK, F_DUMP, F_MULTI, F_REQUEST, MIN_TYPE, Message, Request, error, requests};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// Neighbours, rules, queueing disciplines and the like have none.
const EMPTY: [u16; 7] = [26, 30, 34, 38, 42, 46, 66];
const LO: &[u8] = b"lo\0";
const LO_INDEX: i32 = 1;
/// IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP.
const LO_FLAGS: u32 = 0x1_0049;
const ARPHRD_LOOPBACK: u16 = 772;
const IFA_F_PERMANENT: u8 = 0x80;
const SCOPE_HOST: u8 = 254;

/// Answers to all requests of a datagram.
pub fn answer(raw: &[u8], port: u32) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for request in requests(raw) {
        if request.flags & F_REQUEST != 0 && request.kind >= MIN_TYPE {
            match serve(&request, port) {
                Ok(answers) => {
                    out.extend(answers);
                    if request.flags & F_ACK != 0 && request.flags & F_DUMP != F_DUMP {
                        out.push(error(&request, port, None));
                    }
                }
                Err(errno) => out.push(error(&request, port, Some(errno))),
            }
        } else if request.flags & F_ACK != 0 {
            out.push(error(&request, port, None));
        }
    }
    out
}

fn serve(request: &Request<'_>, port: u32) -> Result<Vec<Vec<u8>>, Errno> {
    let dump = request.flags & F_DUMP == F_DUMP || request.flags & F_DUMP != 0 && request.kind != RTM_GETLINK;
    let family = request.body.first().copied().unwrap_or(0);
    let flags = if dump { F_MULTI } else { 0 };
    let mut parts = match request.kind {
        RTM_GETLINK if dump => vec![link(request.seq, port, flags)],
        RTM_GETLINK => vec![one_link(request, port)?],
        RTM_GETADDR if dump => addresses(family, request.seq, port),
        kind if EMPTY.contains(&kind) && dump => Vec::new(),
        kind if EMPTY.contains(&kind) => return Err(Errno::ENETUNREACH),
        // No device can be made, changed or removed.
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if !dump {
        return Ok(parts);
    }
    parts.push(Message::new(DONE, F_MULTI, request.seq, port, &0i32.to_le_bytes()).finish());
    Ok(vec![parts[..parts.len() - 1].concat(), parts.pop().unwrap_or_default()]
        .into_iter()
        .filter(|p| !p.is_empty())
        .collect())
}

/// The link that a request names by index (`ifinfomsg`) or IFLA_IFNAME.
fn one_link(request: &Request<'_>, port: u32) -> Result<Vec<u8>, Errno> {
    const IFLA_IFNAME: u16 = 3;
    let index = request.body.get(4..8).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes);
    let index = index.ok_or(Errno::EINVAL)?;
    let named = attrs(request.body.get(16..).unwrap_or(&[])).into_iter().find(|(kind, _)| *kind == IFLA_IFNAME);
    let found = match named {
        _ if index > 0 => index == LO_INDEX,
        Some((_, name)) => name.split(|b| *b == 0).next() == Some(b"lo"),
        None => return Err(Errno::EINVAL),
    };
    if found { Ok(link(request.seq, port, 0)) } else { Err(Errno::ENODEV) }
}

fn attrs(mut raw: &[u8]) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    while let Some(head) = raw.get(..4) {
        let len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let Some(value) = raw.get(4..len) else { break };
        out.push((u16::from_le_bytes([head[2], head[3]]), value));
        raw = raw.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    out
}

fn link(seq: u32, port: u32, flags: u16) -> Vec<u8> {
    let mut info = vec![0u8, 0];
    info.extend_from_slice(&ARPHRD_LOOPBACK.to_le_bytes());
    info.extend_from_slice(&LO_INDEX.to_le_bytes());
    info.extend_from_slice(&LO_FLAGS.to_le_bytes());
    info.extend_from_slice(&0u32.to_le_bytes());
    let number = |n: u32| n.to_le_bytes();
    Message::new(RTM_NEWLINK, flags, seq, port, &info)
        .attr(3, LO) // IFLA_IFNAME
        .attr(13, &number(1000)) // IFLA_TXQLEN
        .attr(16, &[0]) // IFLA_OPERSTATE: unknown
        .attr(17, &[0]) // IFLA_LINKMODE
        .attr(4, &number(65_536)) // IFLA_MTU
        .attr(27, &number(0)) // IFLA_GROUP
        .attr(31, &number(1)) // IFLA_NUM_TX_QUEUES
        .attr(32, &number(1)) // IFLA_NUM_RX_QUEUES
        .attr(33, &[1]) // IFLA_CARRIER
        .attr(6, b"noqueue\0") // IFLA_QDISC
        .attr(1, &[0; 6]) // IFLA_ADDRESS
        .attr(2, &[0; 6]) // IFLA_BROADCAST
        .attr(7, &[0; 96]) // IFLA_STATS
        .finish()
}

fn addresses(family: u8, seq: u32, port: u32) -> Vec<Vec<u8>> {
    let wanted = |f: i32| family == 0 || i32::from(family) == f;
    let mut six = [0u8; 16];
    six[15] = 1;
    let all = [(libc::AF_INET, 8u8, vec![127, 0, 0, 1]), (libc::AF_INET6, 128, six.to_vec())];
    let one = |(family, prefix, address): &(i32, u8, Vec<u8>)| {
        let mut info = vec![u8::try_from(*family).unwrap_or(0), *prefix, IFA_F_PERMANENT, SCOPE_HOST];
        info.extend_from_slice(&LO_INDEX.to_le_bytes());
        let forever = [[0xff; 8], [0; 8]].concat();
        let message = Message::new(RTM_NEWADDR, F_MULTI, seq, port, &info).attr(1, address);
        let message = if *family == libc::AF_INET { message.attr(2, address).attr(3, LO) } else { message };
        message.attr(6, &forever).attr(8, &u32::from(IFA_F_PERMANENT).to_le_bytes()).finish()
    };
    all.iter().filter(|(family, ..)| wanted(*family)).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(kind: u16, flags: u16, body: &[u8]) -> Vec<Vec<u8>> {
        answer(&Message::new(kind, flags, 9, 0, body).finish(), 5)
    }

    #[test]
    fn dumps_end_with_done() {
        let got = ask(RTM_GETADDR, F_REQUEST | F_DUMP, &[0; 8]);
        let kinds: Vec<u16> = got.iter().flat_map(|raw| requests(raw)).map(|r| r.kind).collect();
        assert_eq!(kinds, [RTM_NEWADDR, RTM_NEWADDR, DONE]);
        assert_eq!(ask(RTM_GETADDR, F_REQUEST | F_DUMP, &[10]).iter().flat_map(|raw| requests(raw)).count(), 2);
    }

    #[test]
    fn links_are_found_and_others_are_not() {
        let mut body = [0u8; 16];
        body[4] = 1;
        assert_eq!(requests(&ask(RTM_GETLINK, F_REQUEST, &body)[0])[0].kind, RTM_NEWLINK);
        body[4] = 2;
        assert_eq!(requests(&ask(RTM_GETLINK, F_REQUEST, &body)[0])[0].kind, super::super::wire::ERROR);
    }
}
