//! The files that every sandbox gets of its own.

use std::fs;

use super::config::GeneratedFile;

/// /etc/hosts, /etc/hostname and /etc/resolv.conf for a sandbox named `hostname`.
#[must_use]
pub fn generate(hostname: &str) -> Vec<GeneratedFile> {
    let file = |path: &str, contents: String| GeneratedFile { path: path.into(), contents };
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n");
    vec![
        file("/etc/hosts", hosts),
        file("/etc/hostname", format!("{hostname}\n")),
        file("/etc/resolv.conf", resolv_conf(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())),
    ]
}

/// The host's name servers and search list, without its comments and without servers that only the host itself reaches.
fn resolv_conf(host: &str) -> String {
    let keep = |line: &&str| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => words.next().is_some_and(|ip| !ip.starts_with("127.") && ip != "::1"),
            Some("search" | "domain" | "options") => true,
            _ => false,
        }
    };
    host.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_name_servers_are_left_out() {
        let host = "# made by x\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch lan\n";
        assert_eq!(resolv_conf(host), "nameserver 9.9.9.9\nsearch lan\n");
    }
}
